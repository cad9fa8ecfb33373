"""Numbered events: the same in memory, in the journal and on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from interpreter.rendering import output_text

Kind = Literal["meta", "event", "result", "late"]
TERMINAL = frozenset({"done", "error", "exit"})


@dataclass(frozen=True, slots=True)
class Event:
    """`number` counts from 1. After a terminal event (`done`, `error`, `exit`) none follows."""

    number: int
    name: str
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        return self.name in TERMINAL

    @property
    def text(self) -> str:
        """The text in it, of `stdout`, `stderr` and `output` events; otherwise empty."""
        if self.name in ("stdout", "stderr"):
            return str(self.data.get("data", ""))
        output = self.data.get("output")
        return output_text(output) if isinstance(output, dict) else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a journal of an execution holds: events, then the whole result, then late output."""

    kind: Kind
    number: int
    name: str
    data: dict[str, Any]
    mark: Any = None
    """Where in its source this came from: what comes after it is still to be recorded."""


def pack(kind: Kind, number: int, name: str, data: Any, mark: Any = None) -> bytes:
    entry = [kind, number, name, data]
    return dumps(entry if mark is None else [*entry, mark])


def pack_text(name: str, text: str) -> bytes:
    """A long text as it is: as JSON it costs the time of many short ones."""
    return b'["text","%b"]' % name.encode() + text.encode("utf-8", "surrogatepass")


def unpack_text(record: bytes) -> tuple[str, str]:
    head, _, text = record.partition(b"]")
    _, name = orjson.loads(head + b"]")
    return name, text.decode("utf-8", "surrogatepass")


def unpack(record: bytes) -> Entry:
    return Entry(*orjson.loads(record))


def dumps(value: Any) -> bytes:
    """JSON in UTF-8. A lone surrogate, which JSON in UTF-8 cannot hold, becomes U+FFFD."""
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):
        return orjson.dumps(_clean(value))


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8", "replace")
        case dict():
            return {_clean(str(name)): _clean(item) for name, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case int() if not -(2**63) <= value < 2**64:
            return float(value)
        case None | bool() | int() | float():
            return value
    return str(value)


def now() -> str:
    """RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
