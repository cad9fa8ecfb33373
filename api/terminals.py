"""Terminals: an interactive bash over a WebSocket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import Query, WebSocket
from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect, WebSocketState

from api.addresses import SESSION, TheSession
from api.answers import encode
from api.bodies import decode
from api.followers import closing
from api.races import race
from api.routes import noun
from api.validation import invalid
from interpreter.errors import CellshellError, InvalidRequest
from interpreter.fields import Id
from interpreter.models import Model
from interpreter.sessions import Session
from interpreter.terminals import Terminal

router = noun("terminals")
MAX_INPUT_BYTES = 1024 * 1024
MAX_MESSAGE = 4096
GOING_AWAY = 1001
Size = Annotated[int, Field(ge=1, le=1000, strict=True)]


class Resize(Model):
    """What a client may say besides bytes."""

    type: Literal["resize"]
    cols: Size
    rows: Size


RESIZE = TypeAdapter(Resize)


@router.websocket(f"{SESSION}/terminal")
async def attach_terminal(
    websocket: WebSocket,
    session: TheSession,
    id: Annotated[Id, Query(description="Which terminal; a new one when none runs.")] = "default",
    cols: Annotated[int, Query(ge=1, le=1000)] = 80,
    rows: Annotated[int, Query(ge=1, le=1000)] = 24,
) -> None:
    """Binary frames are bytes; text frames are JSON: `resize` in, `ready`, `exit`, `error` out."""
    terminal = await session.terminals.open(id, cols, rows)
    await websocket.accept()
    with suppress(WebSocketDisconnect), session.during():
        await _tell(websocket, "ready")
        await _attach(websocket, session, terminal)


async def _attach(websocket: WebSocket, session: Session, terminal: Terminal) -> None:
    """Until the terminal ends or the client leaves, which the terminal outlives."""
    ends = await race(_show(websocket, terminal), _type(websocket, session, terminal))
    # A frame that could not be sent is noticed on our side only.
    states = {websocket.client_state, websocket.application_state}
    if states == {WebSocketState.CONNECTED}:
        await _finish(websocket, terminal, ends)


async def _finish(websocket: WebSocket, terminal: Terminal, ends: Sequence[object]) -> None:
    for end in ends:
        if isinstance(end, CellshellError):
            await _tell(websocket, "error", message=end.message)
            await websocket.close(GOING_AWAY)
            return
        if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
            raise end
    await _tell(websocket, "exit", code=terminal.exit_code)
    await websocket.close()


async def _show(websocket: WebSocket, terminal: Terminal) -> None:
    async with closing(terminal.output()) as output:
        async for piece in output:
            await websocket.send_bytes(piece)


async def _type(websocket: WebSocket, session: Session, terminal: Terminal) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            await session.box()
            await _obey(terminal, message.get("bytes"), message.get("text"))
        except InvalidRequest as error:
            await _tell(websocket, "error", message=error.message)


async def _obey(terminal: Terminal, data: bytes | None, text: str | None) -> None:
    if data is not None:
        if len(data) > MAX_INPUT_BYTES:
            raise InvalidRequest(f"expected {MAX_INPUT_BYTES} bytes of input at most in a frame")
        await terminal.write(data)
        return
    text = text or ""
    if len(text) > MAX_MESSAGE:
        raise InvalidRequest(f"expected a text frame of {MAX_MESSAGE} characters at most")
    size = _resize(text)
    terminal.resize(size.cols, size.rows)


def _resize(text: str) -> Resize:
    try:
        return RESIZE.validate_python(decode(text.encode("utf-8", "surrogatepass")))
    except ValidationError as error:
        found = invalid([{**item, "loc": ("body", *item["loc"])} for item in error.errors()])
        raise InvalidRequest(
            f'{found.message}; send {{"type": "resize", "cols", "rows"}}'
        ) from None


async def _tell(websocket: WebSocket, type: str, **fields: Any) -> None:
    await websocket.send_text(encode({"type": type, **fields}).decode())
