"""One sandbox's walls, and what happens inside them by way of init."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from interpreter import walls
from interpreter.box_process import BoxProcess
from interpreter.clock import Clock
from interpreter.control import Control
from interpreter.errors import NotReady
from interpreter.family import gone, look
from interpreter.launching import end_of, launch, prepare, tail
from interpreter.walls import BoxPaths, BoxPlan

if TYPE_CHECKING:
    from interpreter.fork_server import ForkServer

log = logging.getLogger(__name__)
Stdio = Literal["null", "pipe"] | int
START_TIMEOUT = END_TIMEOUT = 20.0


class Box:
    """A running box. Its end, by whatever hand, completes `ended`."""

    def __init__(self, plan: BoxPlan, process: subprocess.Popen[bytes] | None) -> None:
        self.plan = plan
        self.paths: BoxPaths = plan.paths
        self.host_run: Path = plan.run
        self.python = walls.python()
        self.host_pid = process.pid if process else -1
        self.init_version = 1
        self.joins: Sequence[str] = ()
        """Of its control groups: files that a process writes `0` to."""
        self.forks: ForkServer | None = None
        """Where kernels can be had from that need not be started."""
        self.limited = False
        """Whether what runs in it unasked would be missed elsewhere."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.clock = Clock(plan.run / "clock.json")
        self._process = process
        self._supervisor = -1
        """A pidfd, of a box without namespaces that was taken up."""
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._discarding: set[asyncio.Task[None]] = set()
        self.control: Control

    @classmethod
    async def start(cls, plan: BoxPlan, joins: Sequence[str] = ()) -> Box:
        """Raises NotReady, with what bwrap said, when the box does not come up."""
        prepare(plan)
        (plan.run / "clock.json").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            path = plan.run / "control"
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(4)
            with (plan.run / "log").open("ab") as log:
                process, info = launch(plan, listener, log, joins)
            box = cls(plan, process)
            box.joins = joins
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    await box._connect(path, info)
            except BaseException as error:
                box._kill()
                process.kill()
                await asyncio.shield(end_of(process))
                if isinstance(error, TimeoutError | OSError | KeyError | ValueError):
                    said = tail(plan.run / "log") or error
                    raise NotReady(f"the box did not start: {said}") from error
                raise
        return box

    @classmethod
    async def find(
        cls, plan: BoxPlan, joins: Sequence[str] = ()
    ) -> tuple[Box, dict[str, BoxProcess]] | None:
        """The box that an earlier service left running, and its processes by name."""
        box = cls(plan, None)
        box.joins = joins
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(plan.run / "control"))
        except OSError:
            connection.close()
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        box.host_pid, _, _ = struct.unpack("iII", credentials)
        if plan.tier == "process" and (init := look(box.host_pid)):
            with suppress(ProcessLookupError):
                box._supervisor = os.pidfd_open(init.parent)
        box.control = Control(connection, on_exit=box._exited, on_close=box._gone)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return box, await box._take_over()
        except (TimeoutError, OSError, KeyError, TypeError) as error:
            log.warning("a box could not be taken up and is ended: %r", error)
            await box.destroy()
            return None

    async def _take_over(self) -> dict[str, BoxProcess]:
        hello, _ = await self.control.request("hello")
        self.init_version = int(hello["version"])
        found = {}
        for process in hello["processes"]:
            result, fds = await self.control.request("take", pid=process["pid"])
            handed = dict(zip(result["fds"], fds, strict=True))
            found[process["name"]] = self.adopt(process["pid"], handed)
        return found

    async def _connect(self, path: Path, info: int | None) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(path))
        self.control = Control(connection, on_exit=self._exited, on_close=self._gone)
        assert self._process
        watch = asyncio.get_running_loop().create_task(end_of(self._process))
        hello = asyncio.get_running_loop().create_task(self.control.request("hello"))
        try:
            await asyncio.wait([watch, hello], return_when=asyncio.FIRST_COMPLETED)
            if not hello.done():
                raise ConnectionResetError("it ended at once")
            result, _ = await hello
            self.init_version = int(result["version"])
        finally:
            hello.cancel()
            watch.cancel()
            await asyncio.gather(hello, watch, return_exceptions=True)
            if info is not None:
                with os.fdopen(info, "rb") as file:
                    self._read_info(file)

    def _read_info(self, file: IO[bytes]) -> None:
        os.set_blocking(file.fileno(), False)
        text = file.read() or b""
        for line in text.decode().splitlines():
            if '"child-pid"' in line:
                self.host_pid = int("".join(c for c in line if c.isdigit()))

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: Stdio = "null",
        stdout: Stdio = "null",
        stderr: Stdio = "null",
        tty: tuple[int, int] | None = None,
        subreaper: bool = False,
        name: str = "",
    ) -> BoxProcess:
        """Start a program. `tty` is (columns, rows) of a pty that takes the place of all three.

        Raises OSError as execve(2) and fork(2) would.
        """
        fds: list[int] = []
        stdio: dict[str, str | int] = {}
        for label, kind in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if isinstance(kind, int):
                fds.append(kind)
                stdio[label] = len(fds) - 1
            else:
                stdio[label] = kind
        request = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "subreaper": subreaper,
            "tty": tty,
            "name": name,
        }
        with self._terminal(tty) as pair:
            result, handed = await self.begin("spawn", [*fds, *pair], **stdio, **request)
        return self.adopt(result["pid"], handed)

    @contextmanager
    def _terminal(self, tty: tuple[int, int] | None) -> Iterator[list[int]]:
        """Both ends of a pseudo terminal, where the box cannot open the second by its name."""
        pair = os.openpty() if tty and self.plan.tier == "process" and not self.plan.uid else ()
        try:
            yield list(pair)
        finally:
            for fd in pair:
                os.close(fd)

    async def begin(
        self, op: str, fds: Sequence[int] = (), **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Have init start something; returns its answer and descriptors by name.

        A caller that is cancelled meanwhile leaves nothing running.
        """
        asked = asyncio.ensure_future(self.control.request(op, fds, **arguments))
        try:
            result, handed = await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._unwanted)
            raise
        return result, dict(zip(result["fds"], handed, strict=True))

    def _unwanted(self, asked: asyncio.Future[tuple[Any, list[int]]]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return
        result, fds = asked.result()
        handed = dict(zip(result["fds"], fds, strict=True))
        process = self.adopt(result["pid"], handed)
        task = asyncio.get_running_loop().create_task(process.discard())
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    def adopt(self, pid: int, fds: dict[str, int]) -> BoxProcess:
        """Our handle on a process that init runs; takes over its descriptors."""
        for label, fd in fds.items():
            if label != "pidfd":
                os.set_blocking(fd, False)
        return BoxProcess(self, pid, fds.pop("pidfd", -1), self._exit(pid), fds)

    async def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor opened inside the box, so that links resolve as its code sees them."""
        _, (fd,) = await self.control.request("open", path=path, flags=flags, mode=mode)
        return fd

    async def rename(self, source: str, destination: str) -> None:
        await self.control.request("rename", source=source, destination=destination)

    async def unlink(self, path: str) -> None:
        await self.control.request("unlink", path=path)

    async def mkfifo(self, path: str) -> None:
        await self.control.request("mkfifo", path=path)

    async def directory(self, path: str, *, create: bool = False) -> str:
        """`path` if it can be entered, else the nearest parent that can; or make it."""
        found, _ = await self.control.request("directory", path=path, create=create)
        return str(found)

    async def connect(
        self, port: int, *, family: Literal["inet", "inet6"] = "inet"
    ) -> socket.socket:
        """A connection to something that listens on the box's loopback."""
        _, (fd,) = await self.control.request("socket", family=family)
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        host = "127.0.0.1" if family == "inet" else "::1"
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
        except BaseException:
            connection.close()
            raise
        return connection

    async def listen(self, port: int) -> socket.socket:
        """A socket that listens on 127.0.0.1 inside; 0 picks a free port."""
        _, (fd,) = await self.control.request("listen", port=port)
        return socket.socket(fileno=fd)

    async def kill_tree(
        self,
        roots: Sequence[int],
        signum: int,
        *,
        spare: Sequence[int] = (),
        but: Sequence[int] = (),
    ) -> list[int]:
        """One pass over `roots` and all below them; nothing below `spare`, nor `but` themselves."""
        found, _ = await self.control.request(
            "kill_tree", roots=list(roots), spare=list(spare), but=list(but), signal=signum
        )
        return [int(pid) for pid in found]

    def guest(self, name: str) -> str:
        """Inside path of one of our programs."""
        if (walls.GUEST / name).exists():
            return f"{self.paths.guest}/{name}"
        return f"{self.paths.kernel_guest}/{name}"

    async def destroy(self) -> None:
        """End everything in the box."""
        if self.plan.tier == "none":
            await self._end_unconfined()
        self._kill()
        if self._process is None:
            await asyncio.shield(self.ended)
            if self._supervisor >= 0:
                await gone(self._supervisor)
        else:
            # bwrap and a supervisor end after init, and after everything in the box.
            await end_of(self._process)
        self.leave()

    def _kill(self) -> None:
        """Init, if it is there: with it ends its namespace, or its supervisor ends all."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.host_pid, signal.SIGKILL)

    async def _end_unconfined(self) -> None:
        """No pid namespace ends here: init, told to end, ends everything below it."""
        with suppress(ProcessLookupError, TimeoutError):
            os.kill(self.host_pid, signal.SIGTERM)
            async with asyncio.timeout(END_TIMEOUT):
                await asyncio.shield(self.ended)

    def leave(self) -> None:
        """Let go of it: it runs on, for the next service to find."""
        self.control.close()
        if self._supervisor >= 0:
            os.close(self._supervisor)
            self._supervisor = -1

    def forget(self, pid: int) -> None:
        self._exits.pop(pid, None)

    def _exit(self, pid: int) -> asyncio.Future[int]:
        if pid not in self._exits:
            self._exits[pid] = asyncio.get_running_loop().create_future()
            if self.ended.done():  # its start was answered with init's last breath
                self._exits[pid].set_result(-signal.SIGKILL)
        return self._exits[pid]

    def _exited(self, pid: int, code: int) -> None:
        future = self._exit(pid)
        if not future.done():
            future.set_result(code)

    def _gone(self) -> None:
        for future in self._exits.values():
            if not future.done():
                future.set_result(-signal.SIGKILL)
        if not self.ended.done():
            self.ended.set_result(None)
