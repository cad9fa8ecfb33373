from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.failures import Failures

TYPED = "what the user typed"
START = {"type": "http.response.start", "status": 200, "headers": []}


async def serve(app: ASGIApp, scope: Scope | None = None) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await Failures(app)(scope or {"type": "http"}, receive, send)
    return sent


async def bug(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError(TYPED)


async def test_a_bug_is_told_to_the_log_and_its_text_to_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    start, body = await serve(bug)
    problem = json.loads(body["body"])
    assert (start["status"], problem["code"]) == (500, "internal_error")
    assert problem["incident"] in caplog.text
    assert "test_failures.py" in caplog.text and "RuntimeError" in caplog.text
    assert TYPED not in caplog.text + str(problem)


async def test_a_bug_halfway_adds_nothing_to_the_answer() -> None:
    async def halfway(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise RuntimeError

    assert await serve(halfway) == [START]


async def test_a_bug_in_a_handshake_is_an_answer_too() -> None:
    scope = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    start, _ = await serve(bug, scope)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 500)


async def test_a_service_that_stops_says_so() -> None:
    waiting = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(serve(wait))
    await waiting.wait()
    task.cancel()
    start, body = await task
    assert (start["status"], json.loads(body["body"])["code"]) == (503, "not_ready")
    assert (b"retry-after", b"1") in start["headers"]
