"""Executions: one run of code or one command each, with an id and numbered events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from interpreter.errors import (
    BY_CODE,
    DiskFull,
    ExecutionForgotten,
    ExecutionMismatch,
    ExecutionNotFound,
    ExecutionOver,
    NotReady,
)
from interpreter.events import Entry, Event, pack, unpack
from interpreter.journal import Journal, records
from interpreter.models import CodeResult, Exec, ExecResult, RunCode
from interpreter.origin import Origin, source_of
from interpreter.recording import DONE_EXCLUDES, Result
from interpreter.settings import Settings
from kernels.errors import CellshellError

Kind = Literal["exec", "code"]
State = Literal["queued", "running", "done"]
RESULTS: dict[Kind, type[ExecResult] | type[CodeResult]] = {"exec": ExecResult, "code": CodeResult}
LATE_BYTES = 1024 * 1024
SMALL = 32 * 1024


class Execution:
    """Queued, running, done. Everything it puts out is in its journal before anybody sees it."""

    def __init__(
        self, id: str, kind: Kind, origin: Origin, journal: Journal, source: str | None = None
    ) -> None:
        self.id = id
        self.kind: Kind = kind
        self.origin = origin
        self.state: State = "queued"
        self.repeated = False
        self.ended_at: float | None = None
        loop = asyncio.get_running_loop()
        self.stop: asyncio.Future[None] = loop.create_future()
        """Done when the execution shall end early."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.stopped_by: CellshellError | None = None
        self.partial: Callable[[], Result] | None = None
        self._journal = journal
        self._path = journal.path
        self._number = 0
        self._late = 0
        self._result: Result | None = None
        self._large = False
        self._waiting = 0
        self._error: CellshellError | None = None
        if source is not None:
            journal.append(pack("meta", 0, kind, {**origin.asdict(), "source": source}))

    @classmethod
    def restore(cls, path: Path) -> Execution | None:
        """One of an earlier service. What it had not ended has ended with that service."""
        entries = [unpack(record) for record in records(path)]
        if not entries or entries[0].kind != "meta":
            return None
        kind: Kind = "exec" if entries[0].name == "exec" else "code"
        execution = cls(path.name, kind, Origin.restore(entries[0].data), Journal(path))
        events = [entry for entry in entries if entry.kind == "event"]
        execution._number = len(events)
        execution.ended_at = path.stat().st_mtime
        if events and events[-1].name in ("done", "error"):
            execution._end_as(events[-1])
        else:
            execution.fail(
                NotReady("the service was restarted while this ran: how it ended is not known")
            )
        return execution

    def _end_as(self, last: Entry) -> None:
        self.state = "done"
        if last.name == "error":
            error = BY_CODE.get(str(last.data.get("code")), CellshellError)
            self._error = error(str(last.data.get("detail")))
        self._close()

    # For whoever runs it

    def start(self, data: dict[str, Any]) -> None:
        self.state = "running"
        self.emit("started", {"id": self.id, **data})

    def emit(self, name: str, data: dict[str, Any]) -> None:
        self._number += 1
        self._write(pack("event", self._number, name, data))

    def finish(self, result: Result) -> None:
        if self.state == "done":
            return
        self._number += 1
        done = result.model_dump(mode="json", exclude=DONE_EXCLUDES[type(result)])
        whole = pack("result", 0, "", result.model_dump(mode="json", exclude={"state"}))
        self._end()
        self._write(pack("event", self._number, "done", done), whole)
        self._result, self._large = result, len(whole) > SMALL
        self._close()
        self._shed()

    def fail(self, error: CellshellError) -> None:
        """End with an error instead of a result."""
        if self.state == "done":
            return
        self._error = error
        self._end()
        self.emit("error", problem(error))
        self._close()

    def late(self, data: dict[str, Any]) -> None:
        """Output that came after the end, of a job in the background or a thread: kept, bounded."""
        record = pack("late", 0, "", data)
        self._late += len(record)
        if self._late > LATE_BYTES or not self._path.exists():
            return
        with suppress(OSError):
            journal = Journal(self._path)
            journal.append(record)
            journal.close()
        self._result = None

    # For whoever asks

    @property
    def source(self) -> str:
        """The command or the code. It may be long: only the journal has it.

        Raises ExecutionForgotten.
        """
        first = next(records(self._path), None) if self._path.exists() else None
        if first is None:
            raise ExecutionForgotten(f"the records of execution {self.id!r} are gone")
        return str(unpack(first).data.get("source", ""))

    async def result(self) -> Result:
        """What it came to, once it has ended. Raises what ended it instead."""
        self._waiting += 1
        try:
            await asyncio.shield(self.ended)
            if self._error is not None:
                raise self._error
            return self._result or self._read_result()
        finally:
            self._waiting -= 1
            self._shed()

    def snapshot(self) -> Result:
        """The result so far, with `state`."""
        if self.state == "done":
            result = self._result or self._read_result()
        elif self.partial is not None:
            result = self.partial()
        else:
            raise ExecutionNotFound(f"execution {self.id!r} has no result yet")
        return result.model_copy(update={"state": self.state})

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """From number `after` + 1, through the terminal event."""
        async for record in self._journal.follow():
            entry = unpack(record)
            if entry.kind == "event" and entry.number > after:
                yield Event(entry.number, entry.name, entry.data)

    async def cancel(self) -> None:
        """Raises ExecutionOver."""
        if self.state == "done":
            raise ExecutionOver(f"execution {self.id!r} is over: there is nothing to cancel")
        self.end_early(None)
        await asyncio.shield(self.ended)

    def end_early(self, reason: CellshellError | None) -> None:
        """Ask it to stop. With a reason, that is what its callers get; else a result says so."""
        self.stopped_by = self.stopped_by or reason
        if not self.stop.done():
            self.stop.set_result(None)

    def _shed(self) -> None:
        """A large result stays in the journal alone, once those who waited for it have it."""
        if self._large and not self._waiting:
            self._result = None

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self, *entries: bytes) -> None:
        if self._journal.closed:
            return
        try:
            self._journal.append(*entries)
        except OSError as error:
            if self._error is None:
                self._error = DiskFull(
                    f"the execution's record cannot be written: {error.strerror}"
                )
            self.end_early(self._error)

    def _end(self) -> None:
        self.state = "done"
        self.ended_at = time.time()
        self.partial = None

    def _close(self) -> None:
        self._journal.close()
        if not self.ended.done():
            self.ended.set_result(None)

    def _read_result(self) -> Result:
        whole, late = None, []
        if self._error is not None:
            raise self._error
        for record in records(self._path):
            entry = unpack(record)
            if entry.kind == "result":
                whole = entry.data
            elif entry.kind == "late":
                late.append(entry.data)
        if whole is None:
            raise ExecutionForgotten(f"the records of execution {self.id!r} are gone")
        return with_late(RESULTS[self.kind].model_validate(whole), late)


def with_late(result: Result, late: list[dict[str, Any]]) -> Result:
    """A result with what came after its end put at the end of its output."""
    streams: dict[str, str] = {}
    outputs: list[dict[str, Any]] = []
    for piece in late:
        output = piece.get("output", {})
        if output:
            outputs.append(output)
        if output.get("output_type") == "stream":
            piece = {"stream": output["name"], "data": output["text"]}
        if "stream" in piece:
            streams[piece["stream"]] = streams.get(piece["stream"], "") + piece["data"]
    changes: dict[str, Any] = {
        stream: getattr(result, stream) + text for stream, text in streams.items()
    }
    if outputs and isinstance(result, CodeResult):
        changes["outputs"] = [*result.outputs, *outputs]
    return result.model_copy(update=changes) if changes else result


def problem(error: CellshellError) -> dict[str, Any]:
    """RFC 9457 document of an error."""
    return {
        "type": "about:blank",
        "title": type(error).__name__,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        **error.details,
    }


class Executions:
    """The executions of one sandbox, oldest first."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self._settings = settings
        self._executions: dict[str, Execution] = {}
        self._forgotten = directory.with_name("executions.forgotten")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._gone = set(self._forgotten.read_text().split()) if self._forgotten.exists() else set()
        self._load()

    def get(self, id: str) -> Execution:
        """Raises ExecutionNotFound."""
        if id not in self._executions:
            if id in self._gone:
                raise ExecutionForgotten(f"the records of execution {id!r} are gone")
            raise ExecutionNotFound(f"this sandbox has no execution {id!r}")
        return self._executions[id]

    def of_context(self, session: str, context: str) -> list[Execution]:
        """The runs of code in a context of that name, in the order they were asked for."""
        found = [
            execution
            for execution in self._executions.values()
            if (execution.origin.session, execution.origin.context) == (session, context)
        ]
        # Those of an earlier service were found in the order they ended.
        return sorted(found, key=lambda execution: execution.origin.begun_at)

    def begin(
        self, kind: Kind, session: str, request: Exec | RunCode, context: str = ""
    ) -> Execution:
        """A new one; or, when the request's id names one of the same request, that one, `repeated`.

        Raises ExecutionMismatch, ExecutionForgotten.
        """
        origin = Origin.of(kind, session, context, request)
        if request.id is not None:
            known = self._executions.get(request.id)
            if known is not None:
                return _same(known, origin)
            if request.id in self._gone:
                raise ExecutionForgotten(
                    f"execution {request.id!r} was run and its records are gone: use a new id"
                )
        self._evict()
        id = request.id or secrets.token_hex(8)
        journal = None
        try:
            journal = Journal(self._directory / id)
            execution = Execution(id, kind, origin, journal, source_of(request))
        except OSError as error:
            if journal is not None:
                journal.close()
                journal.path.unlink()
            raise DiskFull(f"the execution cannot be recorded: {error.strerror}") from error
        self._executions[id] = execution
        if request.id is not None:
            self._given(request.id)
        return execution

    def abandon(self, execution: Execution) -> None:
        """It could not even be queued: as if it had never been asked for."""
        self._executions.pop(execution.id, None)
        self._gone.discard(execution.id)
        execution.fail(ExecutionForgotten("it was never queued"))
        execution.forget()

    def running(self) -> list[Execution]:
        return [execution for execution in self._executions.values() if execution.state != "done"]

    def __len__(self) -> int:
        return len(self._executions)

    def _given(self, id: str) -> None:
        self._gone.add(id)
        with self._forgotten.open("a") as file:
            file.write(id + "\n")

    def _evict(self) -> None:
        settings, now = self._settings, time.time()
        excess = len(self._executions) - settings.kept_executions + 1
        for execution in list(self._executions.values()):
            if execution.ended_at is None:
                continue
            if excess <= 0 and now - execution.ended_at < settings.kept_seconds:
                break
            excess -= 1
            del self._executions[execution.id]
            execution.forget()

    def _load(self) -> None:
        """The executions of an earlier service, for their records."""
        for path in sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime):
            execution = Execution.restore(path)
            if execution is None:
                path.unlink()
            else:
                self._executions[execution.id] = execution


def _same(known: Execution, origin: Origin) -> Execution:
    if known.origin.fingerprint != origin.fingerprint:
        raise ExecutionMismatch(
            f"execution {known.id!r} is of another request: use a new id, or repeat it exactly"
        )
    known.repeated = True
    return known
