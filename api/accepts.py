"""What a caller wants back: JSON or an event stream."""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.requests import Request

from interpreter.errors import InvalidRequest

JSON = "application/json"
EVENTS = "text/event-stream"
NUMBER_DIGITS = 18
QUALITY = re.compile(r"[01](\.\d{0,3})?", re.ASCII)


def wants_events(request: Request) -> bool:
    """Whether `Accept` prefers an event stream: by q-value, then exactness, then order."""
    accept = ",".join(request.headers.getlist("accept"))
    if EVENTS not in accept.lower():
        return False
    ranges = list(_ranges(accept))
    events = _preference(ranges, EVENTS)
    return events[0] > 0 and events > _preference(ranges, JSON)


def last_event(request: Request, after: int = 0) -> int:
    """The number of the last event a caller has: `Last-Event-ID`, else `?after=`."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return after
    if not (given.isascii() and given.isdecimal() and len(given) <= NUMBER_DIGITS):
        raise InvalidRequest(
            f"expected the number of an event as Last-Event-ID, got {given!r:.60}",
            parameter="last-event-id",
        )
    return int(given)


def _preference(ranges: list[tuple[str, float]], wanted: str) -> tuple[float, int, int]:
    """The q-value that the most exact range gives to a type; ties go to what came first."""
    group = wanted.partition("/")[0] + "/*"
    for exactness, name in ((3, wanted), (2, group), (1, "*/*")):
        for position, (given, quality) in enumerate(ranges):
            if given == name:
                return quality, exactness, -position
    return 0.0, 0, 0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        yield name, _quality(parameters)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            return float(value) if QUALITY.fullmatch(value) else 0.0
    return 1.0
