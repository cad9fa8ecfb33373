"""One persistent bash: runs commands exactly as they are and tells what they changed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from interpreter import bash
from interpreter.box import Box, BoxProcess
from interpreter.command_outputs import CommandOutputs, Sink
from interpreter.environment import difference, shareable
from interpreter.family import inside_pid, main_children

How = Literal["report", "exited", "timeout", "stopped"]
_READ = 1 << 18


@dataclass(frozen=True)
class Command:
    text: str
    variables: Mapping[str, str]
    """All that is to be exported while it runs."""
    cwd: str
    stdin: bytes | None = None
    timeout: float | None = None
    own: frozenset[str] = frozenset()
    """Names that were given for this command alone: what the shell had is put back after it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. `report` is None where bash could not tell any more."""

    how: How
    exit_code: int | None
    report: bash.Report | None
    had: Mapping[str, str]
    """What was exported as it began."""
    killed_harder: bool = False
    shell_exited: bool = False


class Shell:
    """One bash of a session. Not for two commands at once: the session queues them."""

    def __init__(self, box: Box, process: BoxProcess, directory: str, fds: dict[str, int]) -> None:
        self.box = box
        self._process = process
        self._directory = directory
        self._script, self._report, self._command = fds["script"], fds["report"], fds["command"]
        self._loop = asyncio.get_running_loop()
        self._outputs: CommandOutputs | None = None
        self._lingering: set[CommandOutputs] = set()
        self._number = 0
        self._releases: set[asyncio.Task[None]] = set()
        self._woken: asyncio.Future[How] | None = None
        self._reported = bytearray()
        self._holding: int | None = None
        self._told: dict[str, str] = {}
        self._covered: set[str] = set()
        self._cwd: str | None = None
        self._grace = 2.0
        self._last = bash.Report(False, 0, False, True, False, "", {})
        self._hold_report()
        self._loop.add_reader(self._report, self._reportable)
        process.ended.add_done_callback(lambda _: self._wake("exited"))

    @classmethod
    async def start(
        cls, box: Box, *, env: Mapping[str, str], name: str, grace: float = 2.0
    ) -> Shell:
        """`grace` is how long a command may take to end after an interrupt."""
        result, handed = await box.begin("shell", argv=bash.ARGV, env=dict(env), name=name)
        process = box.adopt(result["pid"], {"pidfd": handed.pop("pidfd")})
        shell = cls(box, process, result["directory"], handed)
        shell._grace = grace
        shell._told = dict(env)
        os.write(shell._script, bash.FIRST.encode())
        return shell

    @property
    def alive(self) -> bool:
        return not self._process.ended.done()

    async def run(self, command: Command, sink: Sink, stop: asyncio.Future[None]) -> Ended:
        """Run to the end, the timeout, or until `stop` is done; then the shell is free again."""
        outputs = await self._ready_outputs()
        outputs.attach(sink)
        stdin = await self._place_stdin(command.stdin)
        spared = self._children()
        self._woken = self._loop.create_future()
        stopper = self._on_stop(stop)
        timer = command.timeout and self._loop.call_later(command.timeout, self._wake, "timeout")
        try:
            await self._send(command, outputs.number, stdin)
            how = await self._woken
            harder = await self._halt(spared) if how in ("timeout", "stopped") else False
        finally:
            stop.remove_done_callback(stopper)
            if timer:
                timer.cancel()
            self._settle(outputs)
        return self._ended(how, harder)

    async def kill(self) -> None:
        """End the shell and what it started, at once."""
        if self.alive:
            with suppress(ConnectionError):
                await self._sweep([], shell_too=True)
                await self._process.wait()

    async def close(self) -> None:
        await self.kill()
        self._loop.remove_reader(self._report)
        for fd in (self._script, self._report, self._command):
            os.close(fd)
        if self._holding is not None:
            os.close(self._holding)
        for outputs in [self._outputs, *self._lingering]:
            if outputs:
                outputs.close()
        self._outputs = None
        self._lingering.clear()
        await self._process.release()

    # Sending

    async def _send(self, command: Command, number: int, stdin: str) -> None:
        last = self._last
        head = bash.preamble(
            status=last.status,
            posix=last.posix,
            aliases=last.aliases,
            inherit_errexit=last.inherit_errexit,
        )
        text = head + os.fsencode(command.text)
        os.ftruncate(self._command, 0)
        os.pwrite(self._command, text, 0)
        lines = bash.put_back(self._covered)
        told = {name: v for name, v in self._told.items() if name not in self._covered}
        self._covered = set(command.own - told.keys())
        lines += bash.put_aside(self._covered)
        lines += bash.change_variables(difference(told, command.variables))
        if command.cwd != self._cwd:
            previous = self._last.exported.get("OLDPWD")
            lines += bash.change_directory(command.cwd)
            lines += bash.forget_previous_directory(previous)
        self._told = dict(command.variables)
        self._cwd = command.cwd
        await self._write_script(
            os.fsencode(lines + bash.run(self._directory, number, cwd=command.cwd, stdin=stdin))
        )

    async def _write_script(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._script, view) :]
            except BlockingIOError:
                writable = self._loop.create_future()
                self._loop.add_writer(self._script, _done, writable)
                try:
                    await asyncio.wait(
                        [writable, self._process.ended], return_when="FIRST_COMPLETED"
                    )
                finally:
                    self._loop.remove_writer(self._script)
            except BrokenPipeError:
                return

    async def _place_stdin(self, data: bytes | None) -> str:
        if data is None:
            return "/dev/null"
        path = f"{self._directory}/stdin"
        with suppress(FileNotFoundError):
            await self.box.unlink(path)
        fd = await self.box.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            await asyncio.to_thread(file.write, data)
        return path

    async def _ready_outputs(self) -> CommandOutputs:
        if self._outputs is None:
            self._number += 1
            _, fds = await self.box.control.request(
                "outputs", pid=self._process.pid, number=self._number
            )
            self._outputs = CommandOutputs(self._number, fds)
        return self._outputs

    # Ending

    def _settle(self, outputs: CommandOutputs) -> None:
        outputs.drain()
        if outputs.settle():
            return
        self._outputs = None
        self._lingering.add(outputs)
        outputs.linger(lambda: self._let_go(outputs))

    def _let_go(self, outputs: CommandOutputs) -> None:
        self._lingering.discard(outputs)
        labels = [f"{outputs.number}.out", f"{outputs.number}.err"]
        task = self._loop.create_task(self._process.release(*labels))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    def _ended(self, how: How, harder: bool) -> Ended:
        had = self._told
        report = bash.read_report(bytes(self._reported)) if self._reported else None
        self._reported.clear()
        self._woken = None
        if report is not None:
            self._last = report
            private = {k: v for k, v in had.items() if not shareable(k)}
            self._told = private | {k: v for k, v in report.exported.items() if shareable(k)}
            self._cwd = report.cwd
        exited = not self.alive
        code = None
        if exited and how not in ("timeout", "stopped"):
            code = self._process.ended.result()
            code = 128 - code if code < 0 else code
        elif how == "report" and report is not None:
            code = report.status
        return Ended(how, code, report, had, harder, exited)

    async def _halt(self, spared: list[int]) -> bool:
        """SIGINT, then harder. True when it took more than interrupts.

        An interrupt is repeated, since a program that was just being started may have missed it.
        """
        self._woken = self._loop.create_future()
        with suppress(ConnectionError):
            if await self._interrupt(spared):
                return await self._sweep(spared)
            await self._sweep(spared, passes=10)
            if await self._woken_within(self._grace / 4):
                await self._sweep(spared)
            else:
                await self._sweep(spared, shell_too=True)
                await self._process.wait()
        return True

    async def _interrupt(self, spared: list[int]) -> bool:
        for share in (0.05, 0.2, 0.75):
            await self.box.kill_tree([self._process.pid], signal.SIGINT, spare=spared)
            if await self._woken_within(self._grace * share):
                return True
        return False

    async def _sweep(
        self, spared: list[int], *, shell_too: bool = False, passes: int = 10_000
    ) -> bool:
        """SIGKILL, pass after pass, until one finds nothing; also what left the tree meanwhile."""
        roots, found_any = [self._process.pid], False
        but = [] if shell_too else roots
        for _ in range(passes):
            found = await self.box.kill_tree(roots, signal.SIGKILL, spare=spared, but=but)
            if not found:
                break
            found_any = True
            roots = list(dict.fromkeys([*roots, *found]))
        return found_any

    async def _woken_within(self, seconds: float) -> bool:
        assert self._woken
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._woken)
            return True
        return False

    def _on_stop(self, stop: asyncio.Future[None]) -> Callable[[asyncio.Future[None]], None]:
        def stopper(_: asyncio.Future[None]) -> None:
            self._wake("stopped")

        stop.add_done_callback(stopper)
        return stopper

    def _wake(self, how: How) -> None:
        if self._woken and not self._woken.done():
            self._woken.set_result(how)

    def _children(self) -> list[int]:
        """What earlier commands left running, by the pids of the box."""
        return [inside_pid(pid) for pid in main_children(self._process.host_pid)]

    # The report pipe: one report is written from open to close, so it ends with end of file.

    def _hold_report(self) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK
        self._holding = os.open(f"/proc/self/fd/{self._report}", flags)

    def _reportable(self) -> None:
        while True:
            try:
                data = os.read(self._report, _READ)
            except BlockingIOError:
                return
            if not data:
                self._hold_report()
                if not bash.is_last(self._reported):
                    self._wake("report")
                return
            self._reported += data[: MAX_REPORT - len(self._reported)]
            if self._holding is not None:
                os.close(self._holding)
                self._holding = None


MAX_REPORT = 8 << 20


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
