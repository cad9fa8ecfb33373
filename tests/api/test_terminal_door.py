"""The terminal WebSocket, with a client that also sends nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def address(base_url: str, session: str, query: str = "") -> str:
    return f"{base_url.replace('http', 'ws', 1)}{session}/terminal{query}"


async def until(socket: ClientConnection, wanted: bytes) -> bytes:
    """Output, up to and with what is waited for."""
    seen = b""
    while wanted not in seen:
        frame = await socket.recv()
        assert isinstance(frame, bytes), frame
        seen += frame
    return seen


async def said(socket: ClientConnection) -> Any:
    """The next JSON frame, past all output."""
    while isinstance(frame := await socket.recv(), bytes):
        continue
    return json.loads(frame)


async def test_a_shell_answers_and_exits(base_url: str, session: str) -> None:
    async with connect(address(base_url, session, "?id=exits&cols=100&rows=40")) as socket:
        assert json.loads(await socket.recv()) == {"type": "ready"}
        await socket.send(b"stty size; echo h'i'\n")
        await until(socket, b"40 100\r\nhi\r\n")
        await socket.send(json.dumps({"type": "resize", "cols": 90, "rows": 30}))
        await socket.send(b"stty size\n")
        await until(socket, b"30 90\r\n")
        await socket.send(b"exit 7\n")
        assert await said(socket) == {"type": "exit", "code": 7}
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000


async def test_a_terminal_lives_on_and_replays(base_url: str, session: str) -> None:
    url = address(base_url, session, "?id=kept")
    async with connect(url) as socket:
        await said(socket)
        await socket.send(b"x=4; echo marker-$((x*10))\n")
        await until(socket, b"marker-40")
    async with connect(url) as socket:
        await said(socket)
        await until(socket, b"marker-40")
        await socket.send(b"echo again-$((x+1))\n")
        await until(socket, b"again-5")
        await socket.send(b"exit\n")
        assert (await said(socket))["type"] == "exit"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        "[" * 4000,
        '{"type": "nope"}',
        '{"type": "resize"}',
        '{"type": "resize", "cols": 0, "rows": 1}',
        '{"type": "resize", "cols": "80", "rows": 24}',
        '{"type": "resize", "cols": 1e400, "rows": 24}',
        '{"type": "resize", "cols": 80, "rows": 24, "more": 1}',
        "x" * 100_000,
        b"x" * 2_000_000,
    ],
)
async def test_nonsense_is_answered_and_forgotten(
    base_url: str, session: str, frame: str | bytes
) -> None:
    async with connect(address(base_url, session, "?id=nonsense")) as socket:
        assert (await said(socket))["type"] == "ready"
        await socket.send(frame)
        answer = await said(socket)
        assert answer["type"] == "error" and len(answer["message"]) < 500
        await socket.send(b"\x15echo fine-$((1+1))\n")
        await until(socket, b"fine-2")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/sessions/nope/terminal", 404, "session_not_found"),
        ("/sessions/default/terminal?cols=0", 422, "invalid_request"),
        ("/sessions/default/terminal?rows=x", 422, "invalid_request"),
        ("/sessions/default/terminal?id=%20", 422, "invalid_request"),
    ],
)
async def test_a_terminal_that_cannot_be_is_refused_at_the_door(
    base_url: str, sandbox: str, path: str, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{base_url.replace('http', 'ws', 1)}{sandbox}{path}")
    response = refused.value.response
    assert response.status_code == status and json.loads(response.body)["code"] == code


async def test_a_foreign_page_gets_no_terminal(base_url: str, session: str) -> None:
    for origin in ("null", "http://evil.example"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(address(base_url, session), additional_headers={"Origin": origin})
        assert json.loads(refused.value.response.body)["code"] == "origin_refused"
