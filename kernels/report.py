"""What a cell changed in the environment of its session, as its kernel told it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "cellshell"
"""In the metadata of requests and replies."""
MAX_BYTES = 16 * 1024 * 1024
MAX_NAMES = 10_000
MAX_NAME_BYTES = 4096
MAX_VALUE_BYTES = 128 * 1024 - 256
MAX_PATH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Report:
    version: int
    """Of the environment the cell started with."""
    cwd: str | None = None
    set: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """Changed, and not to be shared: too long, or not a name a shell can hold."""
    missing_cwd: str | None = None
    """The working directory that was gone; the cell ran in its nearest parent."""
    exit: int | None = None
    """The kernel is about to end with this code: the cell said `exit()`."""


def parse(metadata: Mapping[str, Any]) -> Report | None:
    """The report in a message's metadata; None: none, or one that is not well formed."""
    told = metadata.get(KEY)
    if not isinstance(told, str) or len(told) > MAX_BYTES:
        return None
    try:
        document = json.loads(told)
        return _report(document) if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        return None


def _report(document: Mapping[str, Any]) -> Report:
    set_ = document.get("set")
    items = list(set_.items())[:MAX_NAMES] if isinstance(set_, dict) else []
    return Report(
        version=_number(document.get("version"), 2**53) or 0,
        cwd=_path(document.get("cwd")),
        set={n: v for n, v in items if _is_name(n) and _is_text(v, MAX_VALUE_BYTES)},
        unset=_names(document.get("unset")),
        skipped=_names(document.get("skipped")),
        missing_cwd=_path(document.get("missing_cwd")),
        exit=_number(document.get("exit"), 256),
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(name for name in value[:MAX_NAMES] if _is_name(name))


def _is_name(value: object) -> bool:
    return _is_text(value, MAX_NAME_BYTES) and value != "" and "=" not in str(value)


def _path(value: object) -> str | None:
    is_path = _is_text(value, MAX_PATH_BYTES) and str(value).startswith("/")
    return str(value) if is_path else None


def _number(value: object, limit: int) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit
    return value if is_number and isinstance(value, int) else None


def _is_text(value: object, max_bytes: int) -> bool:
    """Whether Linux could hold it: no NUL, and bytes that Python decoded."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        return len(os.fsencode(value)) <= max_bytes
    except UnicodeEncodeError:
        return False
