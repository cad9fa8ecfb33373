"""Pid 1 of a box: spawns, opens and signals inside it on the service's word.

    python -I -S -B init.py LISTENING_FD RUN_DIRECTORY RLIMITS_JSON

One SEQPACKET connection at a time carries JSON requests `{"id", "op", ...}` and answers
`{"id", "result"}` or `{"id", "errno", "message"}`, with descriptors attached. Exits of what init
spawned go out as `{"exit": pid, "code": n}`.

The service may die: init keeps a duplicate of every pipe end, FIFO and pty master it handed out,
remembers the exits that nobody was told, and accepts the next connection.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from fcntl import ioctl
from typing import Any

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from channel import Channel, close_all  # type: ignore[import-not-found]
from family import descendants, end_all, signal_all  # type: ignore[import-not-found]
from paths import can_enter, drop, remove_directory  # type: ignore[import-not-found]
from rlimits import limit  # type: ignore[import-not-found]
from starting import become  # type: ignore[import-not-found]

VERSION = 2
"""1: nothing is adopted."""
ORPHAN_TIMEOUT = 24 * 3600
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
PTRACE_DETACH = 17

Request = dict[str, Any]
Answer = tuple[Any, list[int]]
"""A result, and descriptors to hand out."""

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Refused(Exception):
    """A request that cannot be carried out; carries an errno."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Init:
    def __init__(self, listener: socket.socket, run: str) -> None:
        self.listener = listener
        self.run = run
        self.channel: Channel | None = None
        self.names: dict[int, str] = {}
        self.kept: dict[int, dict[str, int]] = {}
        self.exits: dict[int, int] = {}
        self.orphaned_at = time.monotonic()
        self.ended = False

    # The loop

    def serve(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.listener.setblocking(False)
        self.listener.listen(4)  # from here on, SO_PEERCRED tells a service init's own pid
        while True:
            ready = self.poll(wake)
            if wake in ready:
                os.read(wake, 4096)
            self.reap()
            if self.channel and ready.get(self.channel.socket.fileno()):
                self.talk(ready[self.channel.socket.fileno()])
            if self.listener.fileno() in ready:
                self.accept()
            orphaned = not self.channel and time.monotonic() - self.orphaned_at > ORPHAN_TIMEOUT
            if orphaned or self.ended:
                return

    def end(self, *_: object) -> None:
        self.ended = True

    def poll(self, wake: int) -> dict[int, int]:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self.listener, select.POLLIN)
        if self.channel:
            events = select.POLLIN | (select.POLLOUT if self.channel.queue else 0)
            poll.register(self.channel.socket, events)
        return dict(poll.poll(None if self.channel else 60_000))

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("iII", credentials)
        # A peer outside our pid namespace has no pid here. Code in the box has one, and must not
        # be obeyed even if it got hold of the path.
        if os.getpid() == 1 and pid != 0:
            connection.close()
            return
        self.hang_up()
        self.channel = Channel(connection)
        for pid in list(self.exits):
            self.tell_exit(pid)

    def hang_up(self) -> None:
        if self.channel:
            self.channel.close()
        self.channel = None
        self.orphaned_at = time.monotonic()

    def talk(self, events: int) -> None:
        assert self.channel
        try:
            if events & select.POLLOUT:
                self.channel.flush()
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                received = self.channel.receive()
                if received is None:
                    self.hang_up()
                else:
                    self.answer(*received)
        except BlockingIOError:
            pass
        except (ConnectionError, BrokenPipeError):
            self.hang_up()

    def answer(self, request: Request, fds: list[int]) -> None:
        assert self.channel
        try:
            operation = getattr(self, "do_" + request["op"], None)
            if operation is None:
                raise Refused(errno.ENOSYS, f"{request['op']!r} is not known here")
            result, handed = operation(request, fds)
            message = {"id": request["id"], "result": result}
        except (OSError, Refused) as error:
            number = error.errno or errno.EIO
            message, handed = {"id": request["id"], "errno": number, "message": str(error)}, []
        finally:
            close_all(fds)
        self.channel.send(message, handed)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                # A child called PTRACE_TRACEME: let it go on untraced.
                libc.ptrace(PTRACE_DETACH, pid, None, os.WSTOPSIG(status))
            elif pid in self.names:
                self.exits[pid] = os.waitstatus_to_exitcode(status)
                self.tell_exit(pid)

    def tell_exit(self, pid: int) -> None:
        if self.channel:
            try:
                self.channel.send({"exit": pid, "code": self.exits[pid]}, [])
            except (ConnectionError, BrokenPipeError):
                self.hang_up()

    # Operations: (request, received descriptors) -> (result, descriptors to hand out)

    def do_hello(self, request: Request, fds: list[int]) -> Answer:
        processes = [
            {"pid": pid, "name": name, "kept": sorted(self.kept.get(pid, {}))}
            for pid, name in self.names.items()
        ]
        return {"version": VERSION, "pid": os.getpid(), "processes": processes}, []

    def do_take(self, request: Request, fds: list[int]) -> Answer:
        """Hand out what an earlier service was handed for process `pid`."""
        pid = request["pid"]
        kept = self.kept[pid]
        alive = [] if pid in self.exits else [os.pidfd_open(pid)]
        handed = [*alive, *(os.dup(fd) for fd in kept.values())]
        return {"fds": [*(["pidfd"] if alive else []), *kept]}, handed

    def do_spawn(self, request: Request, fds: list[int]) -> Answer:
        handed, child_fds, ends = [], [], {}
        try:
            if request.get("tty"):
                master, slave = map(os.dup, fds) if fds else os.openpty()
                set_size(slave, *request["tty"])
                ends["tty"], child_fds = master, [slave, slave, slave]
            else:
                for name in ("stdin", "stdout", "stderr"):
                    child_fds.append(self.stdio(name, request.get(name, "null"), fds, ends))
            pid, pidfd = self.fork(request, child_fds)
            handed = [os.dup(fd) for fd in ends.values()]
        except BaseException:
            close_all(list(ends.values()))
            raise
        finally:
            close_all(list(set(child_fds)))
        self.names[pid] = request.get("name", "")
        self.kept[pid] = ends
        return {"pid": pid, "fds": ["pidfd", *ends]}, [pidfd, *handed]

    def stdio(self, name: str, kind: str | int, fds: list[int], ends: dict[str, int]) -> int:
        if kind == "null":
            return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if kind == "pipe":
            read, write = os.pipe2(os.O_CLOEXEC)
            ours, theirs = (write, read) if name == "stdin" else (read, write)
            os.set_blocking(ours, False)
            ends[name] = ours
            return theirs
        return os.dup(fds[int(kind)])

    def fork(self, request: Request, child_fds: list[int]) -> tuple[int, int]:
        failed, fail = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            become(request, child_fds, fail)
        os.close(fail)
        try:
            report = os.read(failed, 4096)
        finally:
            os.close(failed)
        if report:
            os.waitpid(pid, 0)
            number, _, message = report.decode().partition(":")
            raise Refused(int(number), message)
        return pid, os.pidfd_open(pid)

    def do_adopt(self, request: Request, fds: list[int]) -> Answer:
        """A process that was forked into the box from outside: it is ours from here on."""
        pid = request["pid"]
        pidfd = os.pidfd_open(pid)
        self.names[pid] = request["name"]
        self.kept[pid] = {}
        return {"pid": pid, "fds": ["pidfd"]}, [pidfd]

    def do_name(self, request: Request, fds: list[int]) -> Answer:
        self.names[request["pid"]] = request["name"]
        return {}, []

    def do_shell(self, request: Request, fds: list[int]) -> Answer:
        """A bash that reads a pipe, with a directory of its own, its report and first outputs."""
        go, start = os.pipe2(os.O_CLOEXEC)
        script, ours = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.read(go, 1)
            request |= {"subreaper": True, "cwd": f"{self.run}/shell/{os.getpid()}"}
            become(request, [script, null, null], os.dup(2))
        close_all([go, script, null])
        directory = f"{self.run}/shell/{pid}"
        os.makedirs(directory, 0o700)
        os.mkfifo(f"{directory}/report", 0o600)
        report = os.open(f"{directory}/report", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        command = os.open(f"{directory}/command", flags, 0o600)
        os.set_blocking(ours, False)
        pidfd = os.pidfd_open(pid)
        os.write(start, b"x")
        os.close(start)
        self.names[pid] = request.get("name", "")
        self.kept[pid] = {"script": ours, "report": report}
        _, outputs = self.do_outputs({"pid": pid, "number": 1}, [])
        names = ["pidfd", "script", "report", "command", "1.out", "1.err"]
        result = {"pid": pid, "directory": directory, "fds": names}
        return result, [pidfd, os.dup(ours), os.dup(report), command, *outputs]

    def do_outputs(self, request: Request, fds: list[int]) -> Answer:
        """A fresh pair of FIFOs for what a command of shell `pid` writes."""
        directory = f"{self.run}/shell/{request['pid']}"
        handed = []
        for name in ("out", "err"):
            label = f"{request['number']}.{name}"
            drop(f"{directory}/{label}")
            os.mkfifo(f"{directory}/{label}", 0o600)
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(f"{directory}/{label}", flags)
            self.kept[request["pid"]][label] = fd
            handed.append(os.dup(fd))
        return {}, handed

    def do_release(self, request: Request, fds: list[int]) -> Answer:
        """Drop duplicates that nobody will ask for again; all of them once the process ended."""
        pid = request["pid"]
        kept = self.kept.get(pid, {})
        for label in request.get("labels") or list(kept):
            if label in kept:
                os.close(kept.pop(label))
            if label[0].isdigit():
                drop(f"{self.run}/shell/{pid}/{label}")
        if pid in self.exits and not kept:
            self.kept.pop(pid, None)
            self.names.pop(pid, None)
            self.exits.pop(pid)
            remove_directory(f"{self.run}/shell/{pid}")
        return {}, []

    def do_open(self, request: Request, fds: list[int]) -> Answer:
        path = os.fsencode(request["path"])
        # Nothing that lies there may make us wait: a FIFO without a reader, say.
        flags = request["flags"] | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(path, flags, request.get("mode", 0o666))
        return {}, [fd]

    def do_rename(self, request: Request, fds: list[int]) -> Answer:
        os.rename(os.fsencode(request["source"]), os.fsencode(request["destination"]))
        return {}, []

    def do_unlink(self, request: Request, fds: list[int]) -> Answer:
        os.unlink(os.fsencode(request["path"]))
        return {}, []

    def do_mkfifo(self, request: Request, fds: list[int]) -> Answer:
        os.mkfifo(os.fsencode(request["path"]), 0o600)
        return {}, []

    def do_directory(self, request: Request, fds: list[int]) -> Answer:
        """The nearest directory at or above `path` that exists and can be entered."""
        path = os.fsencode(request["path"])
        missing = []
        while path not in (b"/", b"") and not can_enter(path):
            missing.append(os.path.basename(path))
            path = os.path.dirname(path)
        if missing and request.get("create"):
            for name in reversed(missing):
                path = os.path.join(path, name)
                os.mkdir(path)
        return os.fsdecode(path) or "/", []

    def do_socket(self, request: Request, fds: list[int]) -> Answer:
        family = socket.AF_INET6 if request.get("family") == "inet6" else socket.AF_INET
        return {}, [socket.socket(family).detach()]

    def do_listen(self, request: Request, fds: list[int]) -> Answer:
        listener = socket.create_server(("127.0.0.1", request["port"]), backlog=128)
        port = listener.getsockname()[1]
        return {"port": port}, [listener.detach()]

    def do_kill_tree(self, request: Request, fds: list[int]) -> Answer:
        found = descendants(request["roots"], set(request["spare"]), set(request["but"]))
        signal_all(found, request["signal"])
        return found, []


def set_size(tty: int, columns: int, rows: int) -> None:
    ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main() -> None:
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    run = sys.argv[2]
    os.makedirs(f"{run}/shell", 0o700, exist_ok=True)
    limit(**json.loads(sys.argv[3]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    init = Init(listener, run)
    if os.getpid() != 1:
        signal.signal(signal.SIGTERM, init.end)
    try:
        init.serve()
    finally:
        end_all()  # without a pid namespace, nothing else would


if __name__ == "__main__":
    main()
