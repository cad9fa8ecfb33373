"""The session's shell and the queue of commands before it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.clock import Clock, boot_time
from interpreter.environment import Environment, difference, shareable
from interpreter.errors import InvalidRequest, SessionDeleted
from interpreter.execution import Execution
from interpreter.frontend_models import FrontendExec
from interpreter.hints import Hints
from interpreter.kept_output import KeptOutput
from interpreter.lane import Lane
from interpreter.models import EnvironmentChanges, Exec, ExecResult, Notice
from interpreter.recording import CommandRecording
from interpreter.settings import Settings
from interpreter.sharing import missing_cwd, too_large
from interpreter.shell import Shell
from interpreter.shell_attachments import ShellAttachments
from interpreter.shell_ledger import Ledger
from interpreter.shell_report import MAX_REPORT
from interpreter.shell_state import Command, Ended
from kernels.errors import CellshellError

MUTE = Notice(
    code="report_missing",
    message="how the command ended is unknown, and what it changed: bash's report was broken or "
    f"longer than {MAX_REPORT >> 20} MiB",
)


class Commands:
    """Runs commands one after the other in the session's bash, started when it is needed."""

    def __init__(
        self,
        session: str,
        environment: Environment,
        *,
        get_box: Callable[[], Awaitable[Box]],
        settings: Settings,
        take_notices: Callable[[], list[Notice]],
        hints: Hints,
        records: Path,
    ) -> None:
        """`records` is a directory of the service's own, for what the next one has to know."""
        self.lane = Lane(f"the shell of session {session!r}", settings.queue_length)
        self.attachments = ShellAttachments()
        self._session = session
        self._environment = environment
        self._get_box = get_box
        self._settings = settings
        self._shell: Shell | None = None
        self._box: Box | None = None
        self._take_notices = take_notices
        self._hints = hints
        self._records = records
        self._unshared: dict[str, str] = {}
        """What the shell exports and the environment has no room for."""
        self._lost = self._stale = False
        """Whether the shell was lost, or is to be replaced before it is used again."""
        self._deleted = False

    def submit(self, execution: Execution, request: Exec, cwd: str | None) -> None:
        """Queue a command; `cwd` is absolute. Raises QueueFull."""
        run = _Run(execution, request, cwd, self._settings, self._environment)
        self.lane.submit(execution, lambda: self._run(run), run.never_ran)

    async def take_up(
        self, box: Box, process: BoxProcess, find: Callable[[str], Execution | None]
    ) -> str | None:
        """The shell of an earlier service; the id of the execution it is in the middle of.

        `find` knows executions. Raises OSError, ValueError, TypeError or KeyError when the shell
        cannot be taken up.
        """
        grace = self._settings.interrupt_grace
        shell, past = await Shell.take_up(box, process, records=self._records, grace=grace)
        self._shell, self._box = shell, box
        fits = self._environment.fits
        self._unshared = {n: v for n, v in past.had.items() if shareable(n) and not fits({n: v})}
        for number, id in past.lingering.items():
            if execution := find(id):
                run = _Run.restored(execution, self._settings, self._environment)
                shell.take_up_outputs(number, run.sink, run.recording.resume(execution.entries()))
        sent = past.sent and find(past.sent.execution)
        return sent.id if sent and sent.state == "running" else None

    def resume(self, execution: Execution) -> None:
        """Queue what is left of a command that the shell is in the middle of."""
        run = _Run.restored(execution, self._settings, self._environment)
        self.lane.submit(execution, lambda: self._run(run, resumed=True), run.never_ran)

    def was_sent(self, execution: Execution) -> bool:
        """Whether the shell of an earlier service may have had it: that is written down first."""
        try:
            past = Ledger.read(self._records)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError, KeyError):
            return True
        return past.sent is not None and past.sent.execution == execution.id

    def interrupt(self) -> None:
        """What runs now, if anything does."""
        if self.lane.running is not None:
            self.lane.running.end_early(None)

    async def restart(self) -> None:
        """A fresh shell; what ran or waited is interrupted."""
        self._stale = True
        running = self.lane.running
        self.lane.stop_all(None)
        if running is not None:
            await asyncio.shield(running.ended)
        if not self.lane.busy:  # else the next command finds a fresh one
            await self._replace_shell()
            self._lost = self._stale = False

    def leave(self) -> None:
        """Let go of everything, for the next service to take up."""
        self._deleted = True
        self.lane.leave()
        if self._shell is not None:
            self._shell.leave()

    async def close(self, reason: CellshellError) -> None:
        """End the shell and what runs in it at once; the callers get `reason`."""
        self._deleted = True
        self.lane.stop_all(reason)
        if self._shell is not None:
            await self._shell.kill()
        await self.lane.close(reason)
        shell, self._shell = self._shell, None
        if shell is not None:
            await shell.close()
        self.attachments.close(reason.message)

    async def _run(self, run: _Run, *, resumed: bool = False) -> None:
        notices: list[Notice] = []
        shell = self._shell if resumed else None
        if shell is None:
            shell = await self._ready(notices)
        if run.execution.stop.done() and not resumed:
            run.never_ran()
            return
        notices += self._take_notices()
        execution, request = run.execution, run.request
        self.attachments.begins(execution, request)
        execution.start({})
        mark = self._hints.mark()
        if request.keep_output:
            run.kept = await KeptOutput.open(shell.box, execution.id, again=resumed)
        ended = await self._execute(shell, run, notices, resumed=resumed)
        if run.kept:
            run.kept.close()
        run.recording.flush()
        changes = self._merge(ended, request, run.cwd, notices)
        mute = ended.how == "report" and ended.report is None
        if mute:
            notices.append(MUTE)
        if not ended.shell_exited and (mute or _corrupts(request.command, run.recording)):
            await self._replace_shell()
        if ended.shell_exited:
            self._lost = True
        if execution.stopped_by is not None:
            execution.fail(execution.stopped_by)
            return
        notices += self._hints.notices(
            mark, lambda: run.recording.text("stderr"), failed=ended.exit_code != 0
        )
        if ended.killed_harder:
            message = "the interrupt did not end everything: what was left was killed"
            notices.append(Notice(code="killed_harder", message=message))
        fields = {
            "exit_code": ended.exit_code,
            "timed_out": ended.how == "timeout",
            "cancelled": ended.how == "stopped",
            "shell_exited": ended.shell_exited,
            "environment_changes": changes,
            "notices": notices,
            "output_path": run.kept.path if run.kept else None,
        }
        execution.finish(run.result(**fields))
        self.attachments.ends(execution)

    async def _execute(
        self, shell: Shell, run: _Run, notices: list[Notice], *, resumed: bool
    ) -> Ended:
        stop, request = run.execution.stop, run.request
        if resumed:
            ended = await shell.resume(
                run.sink,
                run.recording.resume(run.execution.entries()),
                stop,
                timeout=run.time_left(shell.box.clock),
                keep=request.max_output_bytes,
            )
            if ended.how != "unsent":
                return ended
        where = run.cwd or self._environment.cwd
        command = Command(
            text=request.command,
            variables={**self._unshared, **self._environment.overlaid(request.env)},
            own=frozenset(request.env or ()),
            cwd=where,
            stdin=stdin_bytes(request),
            timeout=request.timeout,
            execution=run.execution.id,
            keep=request.max_output_bytes,
        )
        ended = await shell.run(command, run.sink, stop)
        if ended.report is None or not ended.report.gone:
            return ended
        nearest = await shell.box.directory(where)
        notices.append(missing_cwd(where, nearest))
        if run.cwd is None:
            self._environment.merge({}, nearest)
        return await shell.run(replace(command, cwd=nearest), run.sink, stop)

    def _merge(
        self, ended: Ended, request: Exec, cwd: str | None, notices: list[Notice]
    ) -> EnvironmentChanges:
        """What the command changed, but for what was its own."""
        if ended.report is None:
            return EnvironmentChanges()
        own = set(request.env or ())
        now = ended.report.exported
        changes = {
            name: value
            for name, value in difference(ended.had, now).items()
            if shareable(name) and name not in own
        }
        changes, left = self._environment.fitting(changes)
        if left:
            notices.append(too_large(left))
        unshared = {**self._unshared, **left}.items()
        self._unshared = {n: v for n, v in unshared if now.get(n) == v or n in own}
        moved = ended.report.cwd if cwd is None and ended.report.cwd.startswith("/") else None
        return self._environment.merge(changes, moved)

    async def _replace_shell(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            await shell.close()
        self._lost = True

    async def _ready(self, notices: list[Notice]) -> Shell:
        box = await self._get_box()
        usable = self._shell is not None and self._shell.alive and self._box is box
        if self._shell is not None and usable and not self._stale:
            return self._shell
        if self._shell is not None:
            self._lost = (self._lost or self._box is box) and not self._stale
            shell, self._shell = self._shell, None
            await shell.close()
        if self._deleted:
            raise SessionDeleted(f"session {self._session!r} was deleted")
        if self._lost:
            self._lost = False
            message = (
                "the shell is a fresh one: functions, aliases and unexported variables are gone"
            )
            notices.append(Notice(code="shell_restarted", message=message))
        self._box, self._stale = box, False
        self._unshared = {}
        env = {**self._environment.variables, "SHELL": "/bin/bash"}
        self._shell = await Shell.start(
            box,
            env=env,
            name=f"shell:{self._session}",
            records=self._records,
            grace=self._settings.interrupt_grace,
        )
        return self._shell


class _Run:
    """One command on its way: what it puts out, and what becomes of it."""

    def __init__(
        self,
        execution: Execution,
        request: Exec,
        cwd: str | None,
        settings: Settings,
        environment: Environment,
    ) -> None:
        self.execution = execution
        self.request = request
        self.cwd = cwd
        self.kept: KeptOutput | None = None
        self.recording = CommandRecording(
            execution.emit,
            encoding=request.encoding,
            max_bytes=request.max_output_bytes,
            journal_bytes=settings.journal_bytes,
        )
        self._environment = environment
        execution.partial = self.result

    @classmethod
    def restored(cls, execution: Execution, settings: Settings, environment: Environment) -> Self:
        """Of an execution that an earlier service began."""
        request = FrontendExec.model_validate(execution.request)
        return cls(execution, request, execution.cwd, settings, environment)

    def sink(self, stream: str, data: bytes) -> None:
        if self.execution.state == "done":
            taken = self.recording.count(stream, data)
            text = _text(data, self.request.encoding)
            self.execution.late({"stream": stream, "data": text}, taken)
            return
        self.recording.write(stream, data)
        if self.kept:
            self.kept.write(stream, data)

    def result(self, **fields: Any) -> ExecResult:
        base = {
            "id": self.execution.id,
            "command": self.request.command,
            "exit_code": None,
            "duration": boot_time() - self.execution.started_at,
            "cwd": self._environment.cwd,
        }
        return ExecResult.model_validate({**base, **self.recording.fields(), **fields})

    def never_ran(self) -> None:
        if self.execution.stopped_by is not None:
            self.execution.fail(self.execution.stopped_by)
        self.execution.finish(self.result(cancelled=True))

    def time_left(self, clock: Clock) -> float | None:
        timeout = self.request.timeout
        return timeout and max(0.001, timeout - clock.since(self.execution.started_at))


def _corrupts(command: str, recording: CommandRecording) -> bool:
    """Whether bash is not to be trusted any more.

    bash 5.2 that has met a command substitution without an end goes on with a damaged heap: one of
    the next commands would be blamed for the crash.
    """
    if command.count("(") <= command.count(")"):
        return False
    return "unexpected EOF while looking for matching `)'" in recording.text("stderr")


def stdin_bytes(request: Exec) -> bytes | None:
    """Raises InvalidRequest when base64 was announced and something else came."""
    if request.stdin is None:
        return None
    if request.encoding == "utf-8":
        return request.stdin.encode()
    try:
        return base64.b64decode(request.stdin, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"expected `stdin` in base64, as `encoding` says: {error}") from error


def _text(data: bytes, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(data).decode()
    return data.decode("utf-8", "replace")
