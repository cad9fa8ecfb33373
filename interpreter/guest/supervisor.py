"""Stays outside a box without namespaces: connects for its code, and ends it as a whole.

Every `connect` in the box stops at its filter and comes here. What it asks for is copied, looked
at, and done by this process on a duplicate of the socket, so that nothing the code changes
meanwhile counts. It reaches what its own box listens on, at loopback and in its own directories.
So does the opening of a pseudo terminal's other end: by name it could be anybody's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import threading
from fcntl import ioctl
from typing import NamedTuple

from family import end_all  # type: ignore[import-not-found]
from listeners import Listeners, listening, loopback  # type: ignore[import-not-found]

PIDFD_GETFD = 438
NOTIF_RECV, NOTIF_SEND, NOTIF_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
NOTIF_ADDFD, ADDFD_SEND = 0x40182103, 2
CONNECT = (42, 203)
"""Its numbers on x86_64 and aarch64; what else is asked is an `ioctl`."""
TIOCGPTPEER = 0x5441
LONGEST = 128
"""Bytes of an address, as the kernel has it."""
AT_ONCE = 64
"""Connections being made; a box that asks for more is refused."""
PROXY = ("127.0.0.1", 3128)
"""Where the box is told that its way out is; where it really is, the service writes to a file."""
SHARED_MEMORY = "/dev/shm"

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Refused(Exception):
    """What the box is answered instead, an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Asked(NamedTuple):
    """A call that waits for its answer: `connect`, or `ioctl` with TIOCGPTPEER."""

    id: int
    tid: int
    call: int
    fd: int
    second: int
    third: int


class Supervisor:
    def __init__(
        self, init: int, listener: int | None, *, own: list[str], run: str, memory: bool
    ) -> None:
        """`own` are directories whose sockets the box may reach; with `memory` it has a user of
        its own, whose shared memory ends with it."""
        self.init = init
        self.listener = listener
        self.own = [os.fsencode(os.path.realpath(place)) + b"/" for place in own]
        self.run = run
        self.memory = memory
        self.listeners = Listeners(init)
        self.turns = threading.BoundedSemaphore(AT_ONCE)

    def serve(self) -> None:
        """Until init has ended, by whatever hand; then everything in the box is ended."""
        ended = os.pidfd_open(self.init)
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(wake, select.POLLIN)
        if self.listener is not None:
            poll.register(self.listener, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if ended in ready:
                break
            if wake in ready:
                os.read(wake, 4096)
                self.end_stopped()
            if self.listener in ready:
                self.receive()
        end_all()
        bury()
        if self.memory:
            sweep_shared_memory()

    def end_stopped(self) -> None:
        """Code of the box can stop its init, and whoever asked init would wait for ever."""
        if os.waitid(os.P_PID, self.init, os.WSTOPPED | os.WNOHANG):
            os.kill(self.init, signal.SIGKILL)

    def receive(self) -> None:
        assert self.listener is not None
        notification = bytearray(80)
        try:
            ioctl(self.listener, NOTIF_RECV, notification)
        except OSError:
            return  # who asked has ended
        id, tid, _, call, _, _, *arguments = struct.unpack("=QIIiIQ6Q", notification)
        asked = Asked(id, tid, call, _int(arguments[0]), arguments[1], _int(arguments[2]))
        if not self.turns.acquire(blocking=False):
            self.answer(asked, errno.EAGAIN)
            return
        try:
            threading.Thread(target=self.handle, args=(asked,), daemon=True).start()
        except RuntimeError:  # no thread to be had
            self.turns.release()
            self.answer(asked, errno.EAGAIN)

    def handle(self, asked: Asked) -> None:
        number = errno.EACCES
        try:
            if asked.call in CONNECT:
                self.connect(asked)
            else:
                self.open_terminal(asked)
            number = 0
        except (OSError, Refused) as error:
            number = error.errno or errno.EACCES
        finally:
            if number or asked.call in CONNECT:
                self.answer(asked, number)
            self.turns.release()

    def answer(self, asked: Asked, number: int) -> None:
        with contextlib.suppress(OSError):  # who asked has ended
            ioctl(self.listener or -1, NOTIF_SEND, struct.pack("=QqiI", asked.id, 0, -number, 0))

    def connect(self, asked: Asked) -> None:
        if not 2 <= asked.third <= LONGEST:
            raise Refused(errno.EINVAL)
        address = read_memory(asked)
        with contextlib.closing(as_socket(duplicate(asked))) as theirs:
            self.check_alive(asked)
            (family,) = struct.unpack_from("=H", address)
            kind = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
            if family in (socket.AF_UNSPEC, socket.AF_NETLINK):
                connect(theirs, address)
            elif family != kind:
                raise Refused(errno.EAFNOSUPPORT)
            elif family == socket.AF_UNIX:
                self.connect_unix(asked, theirs, address[2:])
            elif family in (socket.AF_INET, socket.AF_INET6):
                self.connect_inet(theirs, address)
            else:
                raise Refused(errno.EAFNOSUPPORT)

    def check_alive(self, asked: Asked) -> None:
        """Only after that it is certain that what was copied is of the process that asked."""
        ioctl(self.listener or -1, NOTIF_ID_VALID, struct.pack("=Q", asked.id))

    def open_terminal(self, asked: Asked) -> None:
        """The other end of a pseudo terminal that the box has opened, as the call's answer."""
        leader = duplicate(asked)
        try:
            self.check_alive(asked)
            flags = asked.third & ~os.O_CLOEXEC | os.O_NOCTTY
            follower = libc.ioctl(leader, TIOCGPTPEER, flags | os.O_CLOEXEC)
            if follower < 0:
                raise Refused(ctypes.get_errno())
        finally:
            os.close(leader)
        try:
            kept = asked.third & os.O_CLOEXEC
            ioctl(
                self.listener or -1,
                NOTIF_ADDFD,
                struct.pack("=QIIII", asked.id, ADDFD_SEND, follower, 0, kept),
            )
        finally:
            os.close(follower)

    def connect_inet(self, theirs: socket.socket, address: bytes) -> None:
        host, port = loopback(address)
        if host is None:
            raise Refused(errno.ENETUNREACH)
        if (host, port) == PROXY and (proxy := self.proxy_port()):
            address = address[:2] + struct.pack("!H", proxy) + address[4:]
        elif not self.listeners.own(host, port):
            raise Refused(errno.ECONNREFUSED)
        connect(theirs, address)

    def proxy_port(self) -> int | None:
        """The port of the service's proxy, if it is that which listens there."""
        try:
            with open(f"{self.run}/proxy") as file:
                port, inode = file.read().split()
        except (OSError, ValueError):
            return None
        return int(port) if listening("tcp", PROXY[0], int(port)) == {inode} else None

    def connect_unix(self, asked: Asked, theirs: socket.socket, name: bytes) -> None:
        """To the very socket that was looked at: its path may lead elsewhere a moment later."""
        path = name.split(b"\0", 1)[0]
        if not path:
            raise Refused(errno.ECONNREFUSED)
        flags = os.O_PATH | os.O_CLOEXEC
        cwd = os.open(f"/proc/{asked.tid}/cwd", flags)
        try:
            found = os.open(path, flags, dir_fd=cwd)
        finally:
            os.close(cwd)
        try:
            real = os.readlink(b"/proc/self/fd/%d" % found)
            if not any(real.startswith(place) for place in self.own):
                raise Refused(errno.EACCES)
            connect(theirs, struct.pack("=H", socket.AF_UNIX) + b"/proc/self/fd/%d\0" % found)
        finally:
            os.close(found)


def _int(argument: int) -> int:
    """The kernel takes the lower half."""
    return int(ctypes.c_int(argument & 0xFFFFFFFF).value)


def read_memory(asked: Asked) -> bytes:
    memory = os.open(f"/proc/{asked.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.pread(memory, asked.third, asked.second)
    except (OSError, OverflowError):
        raise Refused(errno.EFAULT) from None
    finally:
        os.close(memory)
    if len(found) != asked.third:
        raise Refused(errno.EFAULT)
    return found


def duplicate(asked: Asked) -> int:
    """Our own descriptor of what the call is about."""
    pidfd = os.pidfd_open(process_of(asked.tid))
    try:
        fd = libc.syscall(PIDFD_GETFD, pidfd, asked.fd, 0)
        if fd < 0:
            raise Refused(ctypes.get_errno())
        return int(fd)
    finally:
        os.close(pidfd)


def as_socket(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise Refused(error.errno or errno.ENOTSOCK) from None


def process_of(tid: int) -> int:
    """The process that a thread belongs to."""
    with open(f"/proc/{tid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    raise Refused(errno.ESRCH)


def connect(theirs: socket.socket, address: bytes) -> None:
    if libc.connect(theirs.fileno(), address, len(address)) < 0:
        raise Refused(ctypes.get_errno())


def bury() -> None:
    """Wait for what was ended: its files are free when this process ends."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def sweep_shared_memory() -> None:
    """What this user has left there; nobody else's can be removed."""
    for name in os.listdir(SHARED_MEMORY):
        with contextlib.suppress(OSError):
            os.unlink(f"{SHARED_MEMORY}/{name}")
