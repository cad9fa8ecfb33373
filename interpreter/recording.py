"""What an execution puts out: turned into events as it comes, kept bounded for the result."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from interpreter.events import Entry
from interpreter.models import CodeResult, ErrorInfo, ExecResult, Omitted
from kernels import messages
from kernels.bounded import BoundedText, mark
from kernels.outputs import OutputCollector

Encoding = Literal["utf-8", "base64"]
Emit = Callable[[str, dict[str, Any], Any], None]
"""Takes an event's name and data, and where in its source it came from."""
STREAMS: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")
TAIL_EVENT_BYTES = 256 * 1024


class CommandRecording:
    """Bytes of two streams. Text events never split a character."""

    def __init__(
        self, emit: Emit, *, encoding: Encoding, max_bytes: int, journal_bytes: int
    ) -> None:
        self._emit = emit
        self._encoding = encoding
        self._kept = {stream: BoundedText(max_bytes) for stream in STREAMS}
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in STREAMS
        }
        self._room = dict.fromkeys(STREAMS, journal_bytes // 2)
        self._taken = dict.fromkeys(STREAMS, 0)

    def resume(self, entries: Iterable[Entry]) -> dict[str, int]:
        """Take in what an earlier service recorded; how many bytes of each stream that was."""
        for entry in entries:
            if entry.kind == "late" and entry.data.get("stream") in STREAMS:
                self._taken[entry.data["stream"]] = entry.mark
            elif entry.kind == "event" and entry.name in STREAMS:
                stream, data = entry.name, self._bytes(str(entry.data.get("data", "")))
                self._kept[stream].append(data)
                self._room[stream] -= len(data)
                self._taken[stream] = entry.mark
        return {str(stream): taken for stream, taken in self._taken.items()}

    def write(self, stream: str, data: bytes) -> None:
        kept = self._kept[stream]  # type: ignore[index]
        kept.append(data)
        self._taken[stream] += len(data)  # type: ignore[index]
        room = self._room[stream]  # type: ignore[index]
        if room > 0:
            self._room[stream] = room - len(data)  # type: ignore[index]
            self._tell(stream, data)

    def count(self, stream: str, data: bytes) -> int:
        """How many bytes of a stream came, with these, which are kept elsewhere."""
        self._taken[stream] += len(data)  # type: ignore[index]
        return self._taken[stream]  # type: ignore[index]

    def flush(self) -> None:
        """At the end: what a decoder held back, and the tail of what found no room."""
        for stream in STREAMS:
            if self._room[stream] <= 0:
                self._tell_tail(stream)
            elif self._encoding == "utf-8" and (text := self._decoders[stream].decode(b"", True)):
                self._emit(stream, {"data": text}, self._taken[stream])

    def text(self, stream: Literal["stdout", "stderr"]) -> str:
        """What was kept of a stream, whatever the encoding of the result."""
        return self._kept[stream].getvalue().decode("utf-8", "replace")

    def fields(self) -> dict[str, Any]:
        omitted = {stream: self._kept[stream].omitted for stream in STREAMS}
        return {
            **{stream: self._text(self._kept[stream].getvalue()) for stream in STREAMS},
            "truncated": any(omitted.values()),
            "omitted": Omitted(**omitted) if any(omitted.values()) else None,
        }

    def _tell(self, stream: str, data: bytes) -> None:
        taken = self._taken[stream]  # type: ignore[index]
        if self._encoding == "base64":
            self._emit(stream, {"data": base64.b64encode(data).decode()}, taken)
            return
        decoder = self._decoders[stream]  # type: ignore[index]
        if text := decoder.decode(data):
            self._emit(stream, {"data": text}, taken - len(decoder.getstate()[0]))

    def _bytes(self, text: str) -> bytes:
        return base64.b64decode(text) if self._encoding == "base64" else text.encode()

    def _tell_tail(self, stream: Literal["stdout", "stderr"]) -> None:
        kept = self._kept[stream]
        tail = kept.parts()[1][-TAIL_EVENT_BYTES:]
        missing = -self._room[stream] - len(tail)
        if missing > 0:
            self._tell(stream, mark(missing, after=b"\n") + tail)

    def _text(self, data: bytes) -> str:
        if self._encoding == "base64":
            return base64.b64encode(data).decode()
        return data.decode("utf-8", "replace")


class CodeRecording:
    """nbformat outputs. Adjacent text of one stream becomes one event while it waits."""

    def __init__(
        self, emit: Emit, *, results: Collection[str], max_bytes: int, journal_bytes: int
    ) -> None:
        self._emit = emit
        self._max_bytes = max_bytes
        self._collector = OutputCollector(max_bytes, results)
        self._room = journal_bytes
        self.execution_count: int | None = None

    def resume(self, entries: Iterable[Entry]) -> None:
        """Take in what an earlier service recorded."""
        for entry in entries:
            if entry.kind == "event" and (event := recorded_event(entry.name, entry.data)):
                self._collector.apply(event)
                self._room -= len(str(entry.data))

    def write(self, event: messages.Event, mark: Any = None) -> None:
        """`mark` is where in the kernel's output the event came."""
        self._collector.apply(event)
        if self._room <= 0:
            return
        for name, data in event_data(event, self._max_bytes):
            self._room -= len(str(data))
            self._emit(name, data, mark)

    def text(self) -> str:
        """What went wrong, as far as it was told: standard error and the exception."""
        error = self._collector.error
        return self._collector.stream("stderr") + (error.evalue if error else "")

    def fields(self) -> dict[str, Any]:
        collector = self._collector
        error, omitted = collector.error, dict(collector.omitted)
        return {
            "outputs": collector.outputs(),
            "text": collector.text,
            **{stream: collector.stream(stream) for stream in STREAMS},
            "error": error and ErrorInfo(**{**asdict(error), "traceback": list(error.traceback)}),
            "truncated": collector.truncated,
            "omitted": Omitted(**omitted) if any(omitted.values()) else None,
        }


def event_data(event: messages.Event, max_bytes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The wire events a kernel's event becomes."""
    match event:
        case messages.ClearOutput(wait):
            yield "clear_output", {"wait": wait}
        case messages.UpdateDisplay(data, metadata, name):
            changed = {"display_id": name, "data": dict(data), "metadata": dict(metadata)}
            yield "display_update", changed
        case messages.ExecuteInput():
            return
        case _:
            alone = OutputCollector(max_bytes)
            alone.apply(event)
            for output in alone.outputs():
                display_id = getattr(event, "display_id", None)
                extra = {"display_id": display_id} if display_id else {}
                yield "output", {"output": output, **extra}


def recorded_event(name: str, data: Mapping[str, Any]) -> messages.Event | None:
    """What `event_data` made of a kernel's event, turned back."""
    if name == "clear_output":
        return messages.ClearOutput(data["wait"])
    if name == "display_update":
        return messages.UpdateDisplay(data["data"], data["metadata"], data["display_id"])
    output, display_id = data.get("output", {}), data.get("display_id")
    match output.get("output_type"):
        case "stream":
            return messages.Stream(output["name"], output["text"])
        case "display_data":
            return messages.Display(output["data"], output["metadata"], display_id)
        case "execute_result":
            count = output["execution_count"]
            return messages.ExecuteResult(output["data"], output["metadata"], count, display_id)
        case "error":
            return messages.error(output)
    return None


Result = ExecResult | CodeResult
DONE_EXCLUDES = {
    "exec": {"stdout", "stderr"},
    "code": {"outputs", "text", "stdout", "stderr"},
}
"""What goes without saying in a `done` event: the events before it told it."""
