"""JSON to and from kernels: whatever comes is read or refused, and can always be sent on."""

from __future__ import annotations

import json
from typing import Any

import orjson


def pack(value: Any) -> bytes:
    """JSON bytes; text that is not Unicode (file names, mostly) goes out escaped."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)
    except orjson.JSONEncodeError:
        return json.dumps(value, default=str).encode("ascii")


def unpack(data: bytes | str) -> Any:
    """What `data` says, free of lone surrogates and NaN. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        return _clean(json.loads(text, parse_constant=lambda _: None))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
