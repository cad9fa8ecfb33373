"""What a kernel says, as small typed events made out of untrusted messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

JSON_MIME = re.compile(r"application/(?:[^;+]+\+)?json(?:;.*)?", re.IGNORECASE)
MIME = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,155}(?:;[ -~]{0,100})?", re.ASCII)
MAX_MIMES = 32
MAX_COUNT = 2**53
MAX_TRACEBACK = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came: signed by the kernel's key, and no more is known about it."""

    channel: str
    type: str
    id: str
    parent: str
    """Id of the request it belongs to; empty: none."""
    content: Mapping[str, Any]
    metadata: Mapping[str, Any]
    size: int
    number: int | None = None
    """Counted by our own kernel, on iopub."""
    buffers: Sequence[bytes] = ()
    parts: Sequence[bytes] = ()
    """Header, parent header, metadata and content, as they came."""


@dataclass(frozen=True, slots=True)
class Stream:
    name: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class Display:
    """A `display_data`."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    display_id: str | None = None


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    execution_count: int | None
    display_id: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateDisplay:
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    display_id: str


@dataclass(frozen=True, slots=True)
class ClearOutput:
    wait: bool


@dataclass(frozen=True, slots=True)
class ExecuteInput:
    code: str
    execution_count: int | None


@dataclass(frozen=True, slots=True)
class Error:
    ename: str
    evalue: str
    traceback: tuple[str, ...] = field(default=())


Event = Stream | Display | ExecuteResult | UpdateDisplay | ClearOutput | ExecuteInput | Error


def event(message: Message) -> Event | None:
    """The event in an iopub message; None: another kind, or not well formed."""
    make = _MAKERS.get(message.type)
    return make(message.content) if make else None


def error(content: Mapping[str, Any]) -> Error:
    lines = content.get("traceback")
    traceback = [text(line) for line in lines[:MAX_TRACEBACK]] if isinstance(lines, list) else []
    return Error(text(content.get("ename")), text(content.get("evalue")), tuple(traceback))


def count(value: object) -> int | None:
    """An execution count, if that is what `value` is."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    return value if is_count and isinstance(value, int) else None


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _stream(content: Mapping[str, Any]) -> Stream | None:
    name, written = content.get("name"), content.get("text")
    if not isinstance(written, str) or not written:
        return None
    return Stream("stderr" if name == "stderr" else "stdout", written)


def _display(content: Mapping[str, Any]) -> Display | None:
    data = _bundle(content.get("data"))
    return Display(data, _dict(content.get("metadata")), _display_id(content)) if data else None


def _result(content: Mapping[str, Any]) -> ExecuteResult | None:
    data, number = _bundle(content.get("data")), count(content.get("execution_count"))
    metadata = _dict(content.get("metadata"))
    return ExecuteResult(data, metadata, number, _display_id(content)) if data else None


def _update(content: Mapping[str, Any]) -> UpdateDisplay | None:
    data, display_id = _bundle(content.get("data")), _display_id(content)
    if not data or display_id is None:
        return None
    return UpdateDisplay(data, _dict(content.get("metadata")), display_id)


def _clear(content: Mapping[str, Any]) -> ClearOutput:
    return ClearOutput(content.get("wait") is True)


def _input(content: Mapping[str, Any]) -> ExecuteInput:
    return ExecuteInput(text(content.get("code")), count(content.get("execution_count")))


_MAKERS = {
    "stream": _stream,
    "display_data": _display,
    "execute_result": _result,
    "update_display_data": _update,
    "clear_output": _clear,
    "execute_input": _input,
    "error": error,
}


def _bundle(value: object) -> dict[str, Any]:
    """A MIME bundle as nbformat allows it: strings, and any JSON where the type is JSON."""
    if not isinstance(value, dict):
        return {}
    entries = ((mime, _entry(mime, item)) for mime, item in list(value.items())[:MAX_MIMES])
    return {mime: item for mime, item in entries if item is not None}


def _entry(mime: object, item: object) -> object:
    if not isinstance(mime, str) or not MIME.fullmatch(mime):
        return None
    if isinstance(item, str) or JSON_MIME.fullmatch(mime):
        return item
    if isinstance(item, list) and all(isinstance(line, str) for line in item):
        return "".join(item)
    return None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _display_id(content: Mapping[str, Any]) -> str | None:
    found = _dict(content.get("transient")).get("display_id")
    return str(found)[:256] if isinstance(found, str | int) else None
