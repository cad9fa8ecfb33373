"""Event streams, against a server that is a pair of queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from api.followers import following, opened
from api.streams import HEARTBEAT, EventStream
from interpreter.errors import FileNotFound, SessionDeleted
from interpreter.events import Event

STARTED = Event(1, "started", {"id": "e1"})
DONE = Event(3, "done", {"exit_code": 0})


class Reader:
    """A client: what it was sent, and when it goes away."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.complete = not message["more_body"]
            if message["body"]:
                self.sent.put_nowait(message["body"])

    async def read(self, stream: EventStream, method: str = "GET") -> None:
        await stream({"type": "http", "method": method}, self.receive, self.send)

    def events(self) -> list[dict[str, str]]:
        sent = b"".join(self.sent.get_nowait() for _ in range(self.sent.qsize()))
        assert not sent or sent.endswith(b"\n\n")
        messages = [message + b"\n\n" for message in sent.split(b"\n\n")[:-1]]
        return [fields(message) for message in messages if message != HEARTBEAT]


class Source:
    """Events; knows whether they were closed."""

    def __init__(self, *events: Event, error: Exception | None = None, hang: bool = False) -> None:
        self.events = events
        self.error = error
        self.hang = hang
        self.closed = False

    async def __call__(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self.events:
                yield event
            if self.error:
                raise self.error
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def fields(message: bytes) -> dict[str, str]:
    text = message.decode()
    assert text.endswith("\n\n") and text.count("\n") == 4
    return dict(line.split(": ", 1) for line in text.split("\n") if line)


async def served(source: Source, **options: Any) -> list[dict[str, str]]:
    reader = Reader()
    await reader.read(EventStream(source(), heartbeat=60, **options))
    assert source.closed and reader.complete
    return reader.events()


async def test_events_have_number_name_and_data() -> None:
    text = Event(2, "stdout", {"data": "a\nb\r\u2028 é \udcff"})
    _, event, last = await served(Source(STARTED, text, DONE))
    assert (event["id"], event["event"]) == ("2", "stdout")
    assert json.loads(event["data"]) == {"data": "a\nb\r\u2028 é \ufffd"}
    assert last["event"] == "done"


async def test_nothing_follows_the_terminal_event() -> None:
    events = await served(Source(STARTED, DONE, Event(4, "stdout", {})))
    assert [event["event"] for event in events] == ["started", "done"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (Source(STARTED, error=SessionDeleted("gone")), "session_deleted"),
        (Source(STARTED), "internal_error"),
        (Source(STARTED, error=RuntimeError("secret")), "internal_error"),
    ],
)
async def test_a_stream_that_breaks_ends_with_one_error(source: Source, code: str) -> None:
    *_, last = await served(source)
    assert (last["id"], last["event"], json.loads(last["data"])["code"]) == ("2", "error", code)
    assert "secret" not in last["data"]


async def test_a_watch_may_just_end() -> None:
    assert len(await served(Source(STARTED), may_end=True)) == 1


async def test_silence_is_broken() -> None:
    reader, source = Reader(), Source(hang=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.read(EventStream(source(), heartbeat=0.01)))
        assert [await reader.sent.get() for _ in range(3)] == [HEARTBEAT] * 3
        reader.gone.set()


async def test_a_reader_that_goes_away_is_noticed() -> None:
    reader, source, told = Reader(), Source(STARTED, hang=True), asyncio.Event()

    async def gone() -> None:
        told.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(reader.read(EventStream(source(), heartbeat=60, gone=gone)))
        await reader.sent.get()
        reader.gone.set()
    assert told.is_set() and source.closed and not reader.complete


async def test_a_cancelled_stream_gives_up_nothing() -> None:
    """The service is stopping; what runs goes on without it."""
    reader, source, told = Reader(), Source(STARTED, hang=True), asyncio.Event()

    async def gone() -> None:
        told.set()

    task = asyncio.create_task(reader.read(EventStream(source(), heartbeat=60, gone=gone)))
    await reader.sent.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed and not told.is_set()


async def test_head_gets_no_events() -> None:
    reader, source = Reader(), Source(STARTED, hang=True)
    await reader.read(EventStream(source(), heartbeat=60), "HEAD")
    assert reader.complete and not reader.events()


class Past:
    """An execution that is over."""

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        return Source(*(event for event in (STARTED, DONE) if event.number > after))()


@pytest.mark.parametrize(
    ("after", "numbers"), [(0, [1, 3]), (1, [3]), (2, [3]), (3, [3]), (99, [3])]
)
async def test_the_terminal_event_always_comes(after: int, numbers: list[int]) -> None:
    found = [event.number async for event in following(Past(), after)]  # type: ignore[arg-type]
    assert found == numbers


async def test_what_fails_at_the_start_is_no_stream() -> None:
    with pytest.raises(FileNotFound):
        await opened(Source(error=FileNotFound("no"))())


async def test_opened_events_are_all_there() -> None:
    source = Source(STARTED, DONE)
    assert [event async for event in await opened(source())] == [STARTED, DONE]
    assert [event async for event in await opened(Source()())] == []
    assert source.closed


async def test_what_comes_close_together_is_sent_together() -> None:
    async def source() -> AsyncGenerator[Event, None]:
        for number in range(1, 501):
            yield Event(number, "stdout", {"data": "x"})
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert reader.sent.qsize() > 1  # nothing waits for the end
        yield Event(501, "done", {})

    reader = Reader()
    await reader.read(EventStream(source(), heartbeat=60))
    assert reader.sent.qsize() < 50
    assert [event["id"] for event in reader.events()] == [str(n) for n in range(1, 502)]
