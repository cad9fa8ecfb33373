"""One persistent bash: runs commands exactly as they are and tells what they changed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from interpreter import bash
from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.clock import boot_time
from interpreter.command_outputs import STREAMS, CommandOutputs, Sink
from interpreter.family import inside_pid, main_children
from interpreter.shell_ledger import Ledger, Modes, Past, Sent
from interpreter.shell_probe import Probe
from interpreter.shell_report import ReportPipe
from interpreter.shell_script import ScriptPipe
from interpreter.shell_state import Command, Ended, How, ShellState
from interpreter.shell_sweep import Sweep


class Shell:
    """One bash of a session. Not for two commands at once: the session queues them."""

    def __init__(
        self,
        box: Box,
        process: BoxProcess,
        directory: str,
        fds: dict[str, int],
        records: Path,
        ledger: Ledger,
    ) -> None:
        """`directory` is the shell's, in the box; `records` the service's own, on the host."""
        self.box = box
        self._process = process
        self._directory = directory
        self._records = records
        self._ledger = ledger
        self._command = fds["command"]
        self._script = ScriptPipe(fds["script"], process.ended, directory, self._place)
        self._loop = asyncio.get_running_loop()
        self._outputs: CommandOutputs | None = None
        self._lingering: set[CommandOutputs] = set()
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken: asyncio.Future[How] | None = None
        self._state = ShellState({})
        self._grace = 2.0
        self._asked: Probe | None = None
        self._closed = False
        self._told_all = False
        """Whether the command that was sent last has reported."""
        self._past: Past | None = None
        """Of a shell that was taken up and has not told yet how it is."""
        self._report = ReportPipe(fds["report"], records / "report", self._reported)
        process.ended.add_done_callback(self._on_exit)

    @classmethod
    async def start(
        cls, box: Box, *, env: Mapping[str, str], name: str, records: Path, grace: float = 2.0
    ) -> Shell:
        """`grace` is how long a command may take to end after an interrupt."""
        _empty(records)
        result, fds = await box.begin("shell", argv=bash.ARGV, env=dict(env), name=name)
        process = box.adopt(result["pid"], {"pidfd": fds.pop("pidfd")})
        ledger = Ledger.fresh(records)
        shell = cls(box, process, result["directory"], fds, records, ledger)
        shell._grace = grace
        shell._state = ShellState(dict(env))
        if outputs := shell._outputs_of(fds, 1):  # a box of an earlier version hands none over
            shell._outputs, shell._number = outputs, 1
        shell._report.listen()
        await shell._script.write(bash.FIRST.encode())
        return shell

    @classmethod
    async def take_up(
        cls, box: Box, process: BoxProcess, *, records: Path, grace: float
    ) -> tuple[Shell, Past]:
        """One that an earlier service started. Raises OSError, ValueError, TypeError or KeyError
        when there is not enough to go by."""
        ledger, past = Ledger.reopen(records)
        directory = f"{box.paths.run}/shell/{process.pid}"
        fds = process.kept
        command = await box.open(f"{directory}/command", os.O_RDWR)
        shell = cls(box, process, directory, {**fds, "command": command}, records, ledger)
        shell._grace = grace
        shell._past = past
        shell._state = ShellState(past.had)
        if past.sent:
            shell._state.covered, shell._state.cwd = set(past.sent.covered), past.sent.cwd
        shell._take_up_outputs(past)
        return shell, past

    def _take_up_outputs(self, past: Past) -> None:
        """The pair for the next command, or that of the one that runs: nobody else's."""
        numbers = {
            int(label.partition(".")[0]) for label in self._process.kept if label[0].isdigit()
        }
        self._number = max(numbers, default=0)
        for number in sorted(numbers - past.lingering.keys()):
            if self._outputs:
                self._outputs.close()
            self._outputs = self._outputs_of(self._process.kept, number)

    def take_up_outputs(self, number: int, sink: Sink, taken: Mapping[str, int]) -> None:
        """Those that a job of an earlier command still holds."""
        if outputs := self._outputs_of(self._process.kept, number):
            outputs.resume(sink, taken)
            self._linger(outputs)

    async def resume(
        self,
        sink: Sink,
        taken: Mapping[str, int],
        stop: asyncio.Future[None],
        *,
        timeout: float | None,
        keep: int,
    ) -> Ended:
        """The rest of the command that an earlier service sent and had recorded so far."""
        past, outputs = self._past, self._outputs
        assert past and past.sent and outputs
        self._past = None
        self._woken = self._loop.create_future()
        outputs.resume(sink, taken, keep)
        if self._report.resume():
            self._reported()
        if not self.alive:
            self._wake("exited")
        probe = await self._probe()
        woken = self._woken
        probe.report.add_done_callback(lambda _: self._probed(woken))
        ended = await self._until_end(outputs, past.sent.spared, timeout, stop)
        if ended.how != "unsent":
            return ended
        self._state.covered = set(past.sent.owed)
        self._know(probe.of(past.modes))
        return replace(ended, how="stopped") if past.halted else ended

    async def _probe(self) -> Probe:
        self._asked = await Probe(self.box, self._directory, self._records).open()
        await self._script.write(self._asked.line)
        return self._asked

    def _probed(self, woken: asyncio.Future[How]) -> None:
        """bash has answered what came after the command: it reported before, or never had it."""
        if self._woken is woken:  # else that command is over, and another may run
            self._report.catch_up()
            self._wake("unsent")

    async def _ask(self, timeout: float | None, stop: asyncio.Future[None]) -> How | None:
        """How an idle shell of an earlier service is now; None when it has told."""
        past, self._past = self._past, None
        assert past
        if past.sent is None:
            await self._script.write(bash.FIRST.encode())
        self._report.resume()
        probe = await self._probe()
        waited: set[asyncio.Future[Any]] = {probe.report, stop, self._process.ended}
        await self.box.clock.wait(waited, timeout)
        if probe.report.done():
            self._know(probe.of(past.modes))
            return None
        exited = not self.alive
        await self.kill()
        return "stopped" if stop.done() else "exited" if exited else "timeout"

    @property
    def alive(self) -> bool:
        return not self._process.ended.done()

    async def run(self, command: Command, sink: Sink, stop: asyncio.Future[None]) -> Ended:
        """Run to the end, the timeout, or until `stop` is done; then the shell is free again."""
        if self._past and (how := await self._ask(command.timeout, stop)):
            return Ended(how, None, None, {}, killed_harder=True, shell_exited=True)
        outputs = await self._ready_outputs()
        outputs.attach(sink, command.keep)
        stdin = await self._place_stdin(command.stdin)
        spared = self._children()
        self._woken = self._loop.create_future()
        await self._send(command, outputs.number, stdin, spared)
        return await self._until_end(outputs, spared, command.timeout, stop)

    async def _until_end(
        self,
        outputs: CommandOutputs,
        spared: list[int],
        timeout: float | None,
        stop: asyncio.Future[None],
    ) -> Ended:
        assert self._woken
        stopper = self._on_stop(stop)
        timer = self.box.clock.call_later(timeout, lambda: self._wake("timeout"))
        try:
            how = await self._woken
            harder = await self._halt(spared) if how in ("timeout", "stopped") else False
        finally:
            stop.remove_done_callback(stopper)
            timer.cancel()
            self._settle(outputs)
        return self._ended(how, harder)

    async def kill(self) -> None:
        """End the shell and what it started, at once."""
        if self.alive:
            with suppress(ConnectionError):
                await Sweep(self.box, self._process.pid).kill(shell_too=True)
                await self._process.wait()

    async def close(self) -> None:
        await self.kill()
        self._let_go(CommandOutputs.close)
        await self._process.release()

    def leave(self) -> None:
        """Let go of it without ending it, for the next service to take up."""
        self._let_go(CommandOutputs.leave)

    def _let_go(self, of: Callable[[CommandOutputs], None]) -> None:
        """Once: the numbers of closed descriptors soon belong to somebody else."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._report.close()
        if self._asked:
            self._asked.close()
        self._script.close()
        os.close(self._command)
        for outputs in [self._outputs, *self._lingering]:
            if outputs:
                of(outputs)
        self._outputs = None
        self._lingering.clear()
        self._ledger.close()

    # Sending

    async def _send(self, command: Command, number: int, stdin: str, spared: list[int]) -> None:
        state, owed = self._state, sorted(self._state.covered)
        os.ftruncate(self._command, 0)
        os.pwrite(self._command, state.text(command), 0)
        self._report.clear()
        self._told_all = False
        lines = state.lines(command)
        covered = sorted(state.covered)
        self._ledger.sent(
            state.told,
            Sent(command.execution, number, boot_time(), command.cwd, covered, owed, spared),
        )
        run = bash.run(self._directory, number, cwd=command.cwd, stdin=stdin)
        await self._script.tell(lines, run)

    async def _place_stdin(self, data: bytes | None) -> str:
        if data is None:
            return "/dev/null"
        path = f"{self._directory}/stdin"
        await self._place(path, data)
        return path

    async def _place(self, path: str, data: bytes) -> None:
        with suppress(FileNotFoundError):
            await self.box.unlink(path)
        fd = await self.box.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            await asyncio.to_thread(file.write, data)

    async def _ready_outputs(self) -> CommandOutputs:
        if self._outputs is None:
            self._number += 1
            _, fds = await self.box.control.request(
                "outputs", pid=self._process.pid, number=self._number
            )
            pair = dict(zip(STREAMS, fds, strict=True))
            self._outputs = CommandOutputs(self._number, pair, self._records)
        return self._outputs

    def _outputs_of(self, fds: Mapping[str, int], number: int) -> CommandOutputs | None:
        pair = {stream: fds.get(f"{number}.{name}", -1) for stream, name in STREAMS.items()}
        if min(pair.values()) < 0:
            return None
        return CommandOutputs(number, pair, self._records)

    # Ending

    def _settle(self, outputs: CommandOutputs) -> None:
        execution = self._ledger.execution
        outputs.drain()
        if outputs.settle():
            return
        self._outputs = None
        self._ledger.lingers(outputs.number, execution)
        self._linger(outputs)

    def _linger(self, outputs: CommandOutputs) -> None:
        self._lingering.add(outputs)
        outputs.linger(lambda: self._release(outputs))

    def _release(self, outputs: CommandOutputs) -> None:
        self._lingering.discard(outputs)
        outputs.close()
        self._ledger.let_go(outputs.number)
        labels = [f"{outputs.number}.{name}" for name in STREAMS.values()]
        task = self._loop.create_task(self._process.release(*labels))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, how: How, harder: bool) -> Ended:
        had = self._state.told
        report = self._report.read()
        self._woken = None
        if report is not None:
            self._know(report)
        exited = not self.alive
        code = None
        if exited and how not in ("timeout", "stopped"):
            code = self._process.ended.result()
            code = 128 - code if code < 0 else code
        elif how == "report" and report is not None:
            code = report.status
        return Ended(how, code, report, had, harder, exited)

    def _know(self, report: bash.Report) -> None:
        self._state.know(report)
        self._ledger.ended(
            Modes(report.status, report.posix, report.aliases, report.inherit_errexit)
        )

    async def _halt(self, spared: list[int]) -> bool:
        """SIGINT, then harder. True when it took more than interrupts."""
        self._woken = self._loop.create_future()
        self._ledger.halting()
        if not self.alive:
            self._wake("exited")
        elif self._told_all:
            self._wake("report")
        sweep = Sweep(self.box, self._process.pid, spared)
        with suppress(ConnectionError):
            if await sweep.interrupt(self._woken_within):
                return await sweep.kill()
            await sweep.kill(passes=10)
            if await self._woken_within(0.25):
                await sweep.kill()
            else:
                await sweep.kill(shell_too=True)
                await self._process.wait()
        return True

    async def _woken_within(self, share: float) -> bool:
        assert self._woken
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace * share):
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

    def _reported(self) -> None:
        if not bash.is_last(self._report.text):
            self._told_all = True
            self._wake("report")

    def _on_exit(self, _: asyncio.Future[int]) -> None:
        self._wake("exited")


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
