"""The user's names, as a kernel lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_VARIABLES = 2000
MAX_TEXT = 256
MAX_DIMENSIONS = 64
MAX_SIZE = 2**53


@dataclass(frozen=True, slots=True)
class KernelVariable:
    name: str
    type: str
    preview: str
    shape: tuple[int, ...] | None = None
    size_bytes: int | None = None


def variables(content: Mapping[str, Any]) -> list[KernelVariable]:
    """Those in a `variables_reply` that are well formed."""
    entries = content.get("variables")
    if not isinstance(entries, list):
        return []
    found = (_variable(entry) for entry in entries[:MAX_VARIABLES])
    return [variable for variable in found if variable is not None]


def _variable(entry: object) -> KernelVariable | None:
    if not isinstance(entry, dict):
        return None
    words = [entry.get(key) for key in ("name", "type", "preview")]
    name, type_, preview = (word[:MAX_TEXT] if isinstance(word, str) else "" for word in words)
    if not name:
        return None
    return KernelVariable(name, type_, preview, _shape(entry.get("shape")), _size(entry))


def _shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(_is_size(length) for length in value):
        return None
    return tuple(value[:MAX_DIMENSIONS])


def _size(entry: Mapping[str, Any]) -> int | None:
    size = entry.get("size_bytes")
    return size if _is_size(size) else None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_SIZE
