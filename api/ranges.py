"""Parts and versions of a file: `Range`, `If-Range` and `If-None-Match`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interpreter.errors import RangeNotSatisfiable

ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})-(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


def unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the caller has this version already (304)."""
    known = headers.get("if-none-match", "")
    return known.strip() == "*" or etag in (
        tag.strip().removeprefix("W/") for tag in known.split(",")
    )


def wanted_range(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the part that is asked for; None: all of it.

    Several ranges at once, and what is not a range, count as none (RFC 9110, 14.2).
    """
    if headers.get("if-range", etag).strip() != etag:
        return None
    found = ONE_RANGE.fullmatch(headers.get("range", ""))
    if found is None or found.group(1, 2) == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return _suffix(int(last), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise _beyond(size)
    return start, min(int(last) + 1, size) if last else size


def _suffix(length: int, size: int) -> tuple[int, int]:
    if length == 0 or size == 0:
        raise _beyond(size)
    return max(size - length, 0), size


def _beyond(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(f"expected a range within the file's {size} bytes", size=size)
