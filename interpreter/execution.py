"""One run of code or one command, with an id and numbered events."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from interpreter.clock import boot_time
from interpreter.errors import (
    BY_CODE,
    DiskFull,
    ExecutionForgotten,
    ExecutionNotFound,
    ExecutionOver,
    ServiceStopping,
)
from interpreter.events import Entry, Event, pack, pack_text, unpack, unpack_text
from interpreter.journal import Journal, records
from interpreter.models import CodeResult, ExecResult
from interpreter.origin import Origin
from interpreter.recording import DONE_EXCLUDES, STREAMS, Result
from kernels.errors import CellshellError

Kind = Literal["exec", "code"]
State = Literal["queued", "running", "done"]
RESULTS: dict[Kind, type[ExecResult] | type[CodeResult]] = {"exec": ExecResult, "code": CodeResult}
LATE_BYTES = 1024 * 1024
SMALL = 32 * 1024
EVENT, TEXT = b'["event"', b'["text"'
TOLD = "told"
"""Of a result: the streams whose events have all of their text, which is written once then."""
EMPTY: dict[Kind, dict[str, Any]] = {
    "exec": {"stdout": "", "stderr": ""},
    "code": {"stdout": "", "stderr": "", "outputs": [], "text": None},
}


class Execution:
    """Queued, running, done. Everything it puts out is in its journal before anybody sees it."""

    def __init__(
        self,
        id: str,
        kind: Kind,
        origin: Origin,
        journal: Journal,
        request: dict[str, Any],
        *,
        cwd: str | None,
        kept: bool,
    ) -> None:
        """`request` is kept whole: a service that finds it queued can still run it."""
        self.id = id
        self.kind: Kind = kind
        self.origin = origin
        self.state: State = "queued"
        self.repeated = False
        self.cwd = cwd
        """The directory it was given for itself, absolute."""
        self.kept = kept
        """Whether it goes on when nobody waits: it has an id of its caller's, or is detached."""
        self.ended_at: float | None = None
        self.started_at = boot_time()
        """When it began to run, in seconds since boot; before that, when it was asked for."""
        loop = asyncio.get_running_loop()
        self.stop: asyncio.Future[None] = loop.create_future()
        """Done when the execution shall end early."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.stopped_by: CellshellError | None = None
        self.partial: Callable[[], Result] | None = None
        self.watcher: Callable[[str, dict[str, Any]], None] | None = None
        """Is told of each event but the last, as it comes."""
        self.execution_count: int | None = None
        """The kernel's count of cells, of one that an earlier service began."""
        self.mark: Any = None
        """Of the last record, of an execution that was begun by an earlier service."""
        self._journal = journal
        self._path = journal.path
        self._number = 0
        joined = not journal.size and request.get("encoding") != "base64"
        self._told = dict.fromkeys(STREAMS, 0) if joined else {}
        """Characters of a command's streams in events, of one that began here; the events of a
        stream in base64 do not add up to it."""
        self._late = 0
        self._result: Result | None = None
        self._large = False
        self._waiting = 0
        self._error: CellshellError | None = None
        self.ending: Result | CellshellError | None = None
        """How it ended, if this service was there: the result without its output, or the error."""
        self._left = False
        if not journal.size:
            meta = {**origin.asdict(), "kept": kept, "cwd": cwd, "request": request}
            journal.append(pack("meta", 0, kind, meta))

    @classmethod
    def restore(cls, path: Path) -> Execution | None:
        """One of an earlier service, which may still be `unfinished`."""
        found = (record for record in records(path) if not record.startswith(TEXT))
        kinds = [(record[: record.find(b",")], record) for record in found]
        if not kinds or kinds[0][0] != b'["meta"':
            return None
        meta = unpack(kinds[0][1])
        kind: Kind = "exec" if meta.name == "exec" else "code"
        execution = cls(
            path.name,
            kind,
            Origin.restore(meta.data),
            Journal(path),
            dict(meta.data.get("request", {})),
            cwd=meta.data.get("cwd"),
            kept=bool(meta.data.get("kept")),
        )
        execution.mark = unpack(kinds[-1][1]).mark
        events = [record for name, record in kinds if name == EVENT]
        execution._number = len(events)
        last = unpack(events[-1]) if events else None
        if last and last.name in ("done", "error"):
            execution._end_as(last, path)
        elif kinds[-1][0] == b'["result"':
            execution._finish_as(unpack(kinds[-1][1]).data, path)
        elif last:
            execution.state = "running"
            started = unpack(events[0])
            execution.started_at = float(started.mark)
            execution.execution_count = started.data.get("execution_count")
        return execution

    def _end_as(self, last: Entry, path: Path) -> None:
        self.state, self.ended_at = "done", path.stat().st_mtime
        if last.name == "error":
            error = BY_CODE.get(str(last.data.get("code")), CellshellError)
            self._error = error(str(last.data.get("detail")))
        self._close()

    def _finish_as(self, whole: dict[str, Any], path: Path) -> None:
        """The result had been written, and the event that tells of it had not."""
        self.state, self.ended_at = "done", path.stat().st_mtime
        self.emit("done", _without_output(whole, self.kind))
        self._close()

    # For whoever runs it

    def start(self, data: dict[str, Any]) -> None:
        """Once; one that is taken up from an earlier service has started there."""
        if self.state == "queued":
            self.state = "running"
            self.started_at = boot_time()
            self.emit("started", {"id": self.id, **data}, self.started_at)

    def emit(self, name: str, data: dict[str, Any], mark: Any = None) -> None:
        """`mark` says where in its source this came from."""
        self._number += 1
        if name in self._told:
            self._told[name] += len(data["data"])
        if self.watcher is not None:
            self.watcher(name, data)
        self._write(pack("event", self._number, name, data, mark))

    def finish(self, result: Result, mark: Any = None) -> None:
        if self.state == "done":
            return
        self._number += 1
        document = result.model_dump(mode="json", exclude={"state"})
        done = pack("event", self._number, "done", _without_output(document, self.kind), mark)
        long = {name: document.pop(name) for name in STREAMS if len(document[name]) > SMALL}
        told = [name for name, text in long.items() if self._told.get(name) == len(text)]
        document[TOLD] = [] if result.truncated else told
        texts = [pack_text(name, long[name]) for name in long if name not in document[TOLD]]
        whole = pack("result", 0, "", document, mark)
        self._end()
        self._write(*texts, whole, done)
        self._result, self._large = result, bool(long) or len(whole) > SMALL
        self.ending = result.model_copy(update=EMPTY[self.kind])
        self._close()
        self._shed()

    def fail(self, error: CellshellError) -> None:
        """End with an error instead of a result."""
        if self.state == "done":
            return
        self._error = self.ending = error
        self._end()
        self.emit("error", problem(error))
        self._close()

    def leave(self) -> None:
        """This service ends and what runs goes on: the next one takes it up."""
        self._left = True
        self._close()

    def entries(self) -> Iterator[Entry]:
        """What is recorded so far."""
        return (unpack(record) for record in records(self._path) if not record.startswith(TEXT))

    def late(self, data: dict[str, Any], mark: Any = None) -> None:
        """Output that came after the end, of a job in the background or a thread: kept, bounded."""
        record = pack("late", 0, "", data, mark)
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
    def request(self) -> dict[str, Any]:
        """As it was asked for. It may be long: only the journal has it.

        Raises ExecutionForgotten.
        """
        first = next(records(self._path), None) if self._path.exists() else None
        if first is None:
            raise ExecutionForgotten(f"the records of execution {self.id!r} are gone")
        return dict(unpack(first).data.get("request", {}))

    async def result(self) -> Result:
        """What it came to, once it has ended. Raises what ended it instead."""
        self._waiting += 1
        try:
            await asyncio.shield(self.ended)
            if self._error is not None:
                raise self._error
            if self._left:
                raise ServiceStopping
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

    async def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """From number `after` + 1, through the terminal event."""
        async for record in self._journal.follow():
            if not record.startswith(EVENT):  # a result may be large
                continue
            entry = unpack(record)
            if entry.number > after:
                yield Event(entry.number, entry.name, entry.data)
        if self._left:
            raise ServiceStopping

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
        self.partial = self.watcher = None

    def _close(self) -> None:
        self._journal.close()
        if not self.ended.done():
            self.ended.set_result(None)

    def _read_result(self) -> Result:
        whole, late = None, []
        texts: dict[str, str] = {}
        if self._error is not None:
            raise self._error
        for record in records(self._path):
            if record.startswith(TEXT):
                texts.update([unpack_text(record)])
                continue
            entry = unpack(record)
            if entry.kind == "result":
                whole = entry.data | texts
                whole |= {name: self._told_of(name) for name in whole.pop(TOLD, ())}
            elif entry.kind == "late":
                late.append(entry.data)
        if whole is None:
            raise ExecutionForgotten(f"the records of execution {self.id!r} are gone")
        found = RESULTS[self.kind].model_validate(whole)
        return with_late(found, late, base64=self.request.get("encoding") == "base64")

    def _told_of(self, stream: str) -> str:
        events = (unpack(record) for record in records(self._path) if record.startswith(EVENT))
        return "".join(event.data["data"] for event in events if event.name == stream)


def with_late(result: Result, late: list[dict[str, Any]], *, base64: bool = False) -> Result:
    """A result with what came after its end put at the end of its output."""
    streams: dict[str, list[str]] = {}
    outputs: list[dict[str, Any]] = []
    for piece in late:
        output = piece.get("output", {})
        if output:
            outputs.append(output)
        if output.get("output_type") == "stream":
            piece = {"stream": output["name"], "data": output["text"]}
        if "stream" in piece:
            streams.setdefault(piece["stream"], []).append(piece["data"])
    changes: dict[str, Any] = {
        stream: _joined(getattr(result, stream), texts, base64) for stream, texts in streams.items()
    }
    if outputs and isinstance(result, CodeResult):
        changes["outputs"] = [*result.outputs, *outputs]
    return result.model_copy(update=changes) if changes else result


def _joined(text: str, more: list[str], base64: bool) -> str:
    if not base64:
        return "".join([text, *more])
    return b64encode(b"".join(map(b64decode, [text, *more]))).decode()


def _without_output(document: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The `done` event of a result: the events before it told the rest."""
    excluded = {*DONE_EXCLUDES[kind], TOLD}
    return {name: value for name, value in document.items() if name not in excluded}


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
