from __future__ import annotations

import pytest
from starlette.requests import Request

from api.accepts import last_event, wants_events
from interpreter.errors import InvalidRequest


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream, */*", True),
        ("*/*, text/event-stream", True),
        ("text/event-stream, application/json;q=0.9", True),
        ("text/event-stream, application/json", True),
        ("application/json, text/event-stream", False),
        ("application/json;q=0.5, text/event-stream;q=0.6", True),
        ("application/json, text/event-stream;q=0.9", False),
        ("text/event-stream;q=0, */*", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=nan", False),
        ("text/event-stream;q=", False),
        ("text/*", False),
        ("*/*", False),
        ("application/json", False),
        ("", False),
        (";;,,=", False),
    ],
)
def test_accept_chooses_between_json_and_events(accept: str, events: bool) -> None:
    assert wants_events(request(accept=accept)) is events


def test_without_accept_it_is_json() -> None:
    assert wants_events(request()) is False


def test_the_header_wins_over_the_query() -> None:
    assert last_event(request(), 3) == 3
    assert last_event(request(last_event_id=" 7 "), 3) == 7


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 19, "0x1"])
def test_a_last_event_that_is_no_number_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="Last-Event-ID"):
        last_event(request(last_event_id=given))
