"""The session's shell and the queue of commands before it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

from interpreter.box import Box
from interpreter.environment import Environment, difference, shareable
from interpreter.errors import InvalidRequest, SessionDeleted
from interpreter.executions import Execution
from interpreter.hints import no_network
from interpreter.kept_output import KeptOutput
from interpreter.lane import Lane
from interpreter.models import EnvironmentChanges, Exec, ExecResult, Notice
from interpreter.recording import CommandRecording
from interpreter.settings import Settings
from interpreter.sharing import missing_cwd, too_large
from interpreter.shell import Command, Ended, Shell
from kernels.errors import CellshellError


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
        network: bool,
    ) -> None:
        self.lane = Lane(f"the shell of session {session!r}", settings.queue_length)
        self._session = session
        self._environment = environment
        self._get_box = get_box
        self._settings = settings
        self._shell: Shell | None = None
        self._box: Box | None = None
        self._take_notices = take_notices
        self._network = network
        self._unshared: dict[str, str] = {}
        """What the shell exports and the environment has no room for."""
        self._lost = False
        self._deleted = False

    def submit(self, execution: Execution, request: Exec, cwd: str | None) -> None:
        """Queue a command; `cwd` is absolute. Raises QueueFull."""
        recording = CommandRecording(
            execution.emit,
            encoding=request.encoding,
            max_bytes=request.max_output_bytes,
            journal_bytes=self._settings.journal_bytes,
        )
        started = time.monotonic()

        def result(**fields: Any) -> ExecResult:
            base = {
                "id": execution.id,
                "command": request.command,
                "exit_code": None,
                "duration": time.monotonic() - started,
                "cwd": self._environment.cwd,
            }
            return ExecResult.model_validate({**base, **recording.fields(), **fields})

        async def job() -> None:
            nonlocal started
            started = time.monotonic()
            await self._run(execution, request, cwd, recording, result)

        execution.partial = result
        self.lane.submit(execution, job, lambda: execution.finish(result(cancelled=True)))

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

    async def _run(
        self,
        execution: Execution,
        request: Exec,
        cwd: str | None,
        recording: CommandRecording,
        result: Callable[..., ExecResult],
    ) -> None:
        notices: list[Notice] = []
        shell = await self._ready(notices)
        notices += self._take_notices()
        execution.start({})
        kept = await KeptOutput.open(shell.box, execution.id) if request.keep_output else None

        def sink(stream: str, data: bytes) -> None:
            if execution.state == "done":
                execution.late({"stream": stream, "data": _text(data, request.encoding)})
                return
            recording.write(stream, data)
            if kept:
                kept.write(stream, data)

        ended = await self._execute(shell, request, cwd, sink, execution.stop, notices)
        if kept:
            kept.close()
        recording.flush()
        changes = self._merge(ended, request, cwd, notices)
        mute = ended.how == "report" and ended.report is None
        if not ended.shell_exited and (mute or _corrupts(request.command, recording)):
            await self._replace_shell()
        if ended.shell_exited:
            self._lost = True
        if execution.stopped_by is not None:
            execution.fail(execution.stopped_by)
            return
        if not self._network:
            notices += no_network(recording.text("stderr"))
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
            "output_path": kept.path if kept else None,
        }
        execution.finish(result(**fields))

    async def _execute(
        self,
        shell: Shell,
        request: Exec,
        cwd: str | None,
        sink: Callable[[str, bytes], None],
        stop: asyncio.Future[None],
        notices: list[Notice],
    ) -> Ended:
        where = cwd or self._environment.cwd
        command = Command(
            text=request.command,
            variables={**self._unshared, **self._environment.overlaid(request.env)},
            own=frozenset(request.env or ()),
            cwd=where,
            stdin=stdin_bytes(request),
            timeout=request.timeout,
        )
        ended = await shell.run(command, sink, stop)
        if ended.report is None or not ended.report.gone:
            return ended
        nearest = await shell.box.directory(where)
        notices.append(missing_cwd(where, nearest))
        if cwd is None:
            self._environment.merge({}, nearest)
        moved = Command(**{**command.__dict__, "cwd": nearest})
        return await shell.run(moved, sink, stop)

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
        if self._shell is not None and self._shell.alive and self._box is box:
            return self._shell
        if self._shell is not None:
            self._lost = self._lost or self._box is box
            await self._shell.close()
            self._shell = None
        if self._deleted:
            raise SessionDeleted(f"session {self._session!r} was deleted")
        if self._lost:
            self._lost = False
            message = (
                "the shell is a fresh one: functions, aliases and unexported variables are gone"
            )
            notices.append(Notice(code="shell_restarted", message=message))
        self._box = box
        self._unshared = {}
        env = {**self._environment.variables, "SHELL": "/bin/bash"}
        self._shell = await Shell.start(
            box,
            env=env,
            name=f"shell:{self._session}",
            grace=self._settings.interrupt_grace,
        )
        return self._shell


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
