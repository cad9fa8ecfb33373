"""The outputs of one execution, as a notebook would hold them at its end, bounded in size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from kernels import messages
from kernels.bounded import BoundedText, mark

StreamName = Literal["stdout", "stderr"]
Output = dict[str, Any]

RESULTS = ("execute_result",)
MAX_OUTPUTS = 10_000
MAX_RICH_BYTES = 256 * 1024 * 1024
"""All outputs together that are not streams; more are dropped, as beyond MAX_OUTPUTS."""
MAX_METADATA_BYTES = 64 * 1024


@dataclass(slots=True)
class _Written:
    """A stretch of a stream between two other outputs, by its place in the whole stream."""

    name: StreamName
    start: int
    end: int


@dataclass(slots=True)
class _Rich:
    output: Output
    size: int
    display_id: str | None = None


class OutputCollector:
    """Applies the events of an execution; `max_bytes` for each stream, and each other output.

    `results` are the types of output a kernel shows the value of a cell as.
    """

    def __init__(self, max_bytes: int, results: Collection[str] = RESULTS) -> None:
        self._max_bytes = max_bytes
        self._results = results
        self._dropped = 0
        self._cut = False
        self._clear()

    def apply(self, event: messages.Event) -> None:
        match event:
            case messages.Stream():
                self._clear_if_due()
                self._write(event.name, event.text.encode("utf-8", "replace"))
            case messages.Display() | messages.ExecuteResult():
                self._clear_if_due()
                self._add(self._rich(event))
            case messages.Error():
                self._clear_if_due()
                self._add(self._error(event))
            case messages.UpdateDisplay():
                self._update(event)
            case messages.ClearOutput():
                self._clear_due = event.wait
                if not event.wait:
                    self._clear()
            case messages.ExecuteInput():
                pass

    def outputs(self) -> list[Output]:
        """nbformat v4 outputs, in order."""
        found: list[Output] = []
        for output in self._rendered():
            last = found[-1] if found else {}
            if output["output_type"] == "stream" and last.get("name") == output["name"]:
                last["text"] += output["text"]
            else:
                found.append(output)
        return found

    def stream(self, name: StreamName) -> str:
        """The whole of one stream, cut in the middle if it was too long."""
        return self._streams[name].getvalue().decode("utf-8", "replace")

    @property
    def text(self) -> str | None:
        """text/plain of the last result."""
        for item in reversed(self._items):
            if isinstance(item, _Rich) and item.output["output_type"] in self._results:
                plain = item.output["data"].get("text/plain")
                return plain if isinstance(plain, str) else None
        return None

    @property
    def error(self) -> messages.Error | None:
        """The last error among the outputs."""
        for item in reversed(self._items):
            if isinstance(item, _Rich) and item.output["output_type"] == "error":
                return messages.error(item.output)
        return None

    @property
    def omitted(self) -> dict[StreamName, int]:
        """Bytes left out of each stream."""
        return {name: kept.omitted for name, kept in self._streams.items()}

    @property
    def truncated(self) -> bool:
        return self._cut or self._dropped > 0 or any(self.omitted.values())

    def _clear(self) -> None:
        self._items: list[_Written | _Rich] = []
        self._last: dict[StreamName, _Written] = {}
        self._streams: dict[StreamName, BoundedText] = {
            "stdout": BoundedText(self._max_bytes),
            "stderr": BoundedText(self._max_bytes),
        }
        self._rich_bytes = 0
        self._clear_due = False

    def _clear_if_due(self) -> None:
        if self._clear_due:
            self._clear()

    def _write(self, name: StreamName, data: bytes) -> None:
        kept = self._streams[name]
        last = self._items[-1] if self._items else None
        full = len(self._items) >= MAX_OUTPUTS
        if not isinstance(last, _Written) or last.name != name:
            last = self._last.get(name) if full else None
        if last is None:
            last = self._last[name] = _Written(name, kept.total, kept.total)
            self._items.append(last)
        kept.append(data)
        last.end = kept.total

    def _add(self, item: _Rich) -> None:
        if len(self._items) >= MAX_OUTPUTS or self._rich_bytes + item.size > MAX_RICH_BYTES:
            self._dropped += 1
            return
        self._items.append(item)
        self._rich_bytes += item.size

    def _update(self, event: messages.UpdateDisplay) -> None:
        for item in self._items:
            if isinstance(item, _Rich) and item.display_id == event.display_id:
                data, size = self._bounded(event.data)
                if self._rich_bytes + size - item.size > MAX_RICH_BYTES:
                    self._dropped += 1
                    return
                item.output["data"], item.output["metadata"] = data, _small(event.metadata)
                self._rich_bytes += size - item.size
                item.size = size

    def _rich(self, event: messages.Display | messages.ExecuteResult) -> _Rich:
        data, size = self._bounded(event.data)
        output: Output = {"output_type": "display_data", "data": data}
        if isinstance(event, messages.ExecuteResult):
            output = {"output_type": "execute_result", "data": data}
            output["execution_count"] = event.execution_count
        output["metadata"] = _small(event.metadata)
        return _Rich(output, size, event.display_id)

    def _error(self, event: messages.Error) -> _Rich:
        ename, evalue = event.ename[:1000], self._shortened(event.evalue)
        traceback = list(event.traceback)
        if sum(map(len, traceback)) * 4 > self._max_bytes:
            traceback = self._shortened("\n".join(traceback)).split("\n")
        size = len(ename) + len(evalue) + sum(map(len, traceback))
        output = {
            "output_type": "error",
            "ename": ename,
            "evalue": evalue,
            "traceback": traceback,
        }
        return _Rich(output, size)

    def _bounded(self, bundle: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The bundle without what is too long, which text/plain then says."""
        data: dict[str, Any] = {}
        notes = []
        for mime, value in bundle.items():
            size = _size(value)
            if mime == "text/plain" and isinstance(value, str):
                data[mime] = self._shortened(value)
            elif size is None or size > self._max_bytes:
                notes.append(f"[{mime} left out: {_too_much(size, self._max_bytes)}]")
            else:
                data[mime] = value
        if notes:
            self._cut = True
            data["text/plain"] = "\n".join([*filter(None, [data.get("text/plain")]), *notes])
        return data, sum(_size(value) or 0 for value in data.values())

    def _shortened(self, value: str) -> str:
        if len(value) * 4 <= self._max_bytes:
            return value
        kept = BoundedText(self._max_bytes)
        kept.append(value.encode("utf-8", "replace"))
        self._cut = self._cut or kept.omitted > 0
        return kept.getvalue().decode("utf-8", "replace")

    def _rendered(self) -> Iterator[Output]:
        parts = {name: kept.parts() for name, kept in self._streams.items()}
        for item in self._items:
            if isinstance(item, _Rich):
                yield {**item.output}
            else:
                text = _stretch(item, *parts[item.name], self._streams[item.name].total)
                if text:
                    yield {"output_type": "stream", "name": item.name, "text": text}
        if self._dropped:
            note = f"[{self._dropped} more outputs left out]"
            yield {"output_type": "display_data", "data": {"text/plain": note}, "metadata": {}}


def _stretch(item: _Written, head: bytes, tail: bytes, total: int) -> str:
    """What is left of a stretch of a stream of which head and tail are left."""
    tail_start = total - len(tail)
    text = head[item.start : item.end]
    if item.start <= len(head) < item.end and tail_start > len(head):
        text += mark(tail_start - len(head), after=head)
    text += tail[max(0, item.start - tail_start) : max(0, item.end - tail_start)]
    return text.decode("utf-8", "replace")


def _size(value: Any) -> int | None:
    """Bytes as JSON; None: more than JSON can hold."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError:
        return None


def _too_much(size: int | None, limit: int) -> str:
    return "nested too deeply" if size is None else f"{size} bytes, the limit is {limit}"


def _small(metadata: Mapping[str, Any]) -> dict[str, Any]:
    size = _size(metadata)
    return dict(metadata) if size is not None and size <= MAX_METADATA_BYTES else {}
