"""A kernel's channels over a WebSocket, as Jupyter's frontends speak them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from api.jupyter_addresses import TheKernel, find_frontends
from api.jupyter_frames import V1, from_legacy, from_v1, to_legacy, to_v1
from api.races import race
from api.routes import noun
from interpreter.errors import InvalidRequest
from interpreter.frontend import Frontend
from kernels.packets import Packet

router = noun("jupyter")
INVALID = 1007
GOING_AWAY = 1001
LONGEST_REASON = 120
"""A close frame has room for 123 bytes."""


@router.websocket("/api/kernels/{kernel}/channels")
async def attach_kernel(websocket: WebSocket, kernel: TheKernel) -> None:
    """All channels in one: `session_id` is what the frontend calls itself."""
    frontends = await find_frontends(websocket)
    await kernel.ready()
    binary = V1 in websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=V1 if binary else None)
    client = websocket.query_params.get("session_id") or secrets.token_hex(8)
    frontend = kernel.attach(client[:256], lambda: frontends.end(kernel))
    try:
        with suppress(WebSocketDisconnect):
            await _attach(websocket, frontend, to_v1 if binary else to_legacy)
    finally:
        frontend.detach()


async def _attach(
    websocket: WebSocket, frontend: Frontend, frame: Callable[[Packet], str | bytes]
) -> None:
    ends = await race(_show(websocket, frontend, frame), _hear(websocket, frontend))
    states = {websocket.client_state, websocket.application_state}
    if states != {WebSocketState.CONNECTED}:
        return
    for end in ends:
        if isinstance(end, InvalidRequest):
            await websocket.close(INVALID, end.message[:LONGEST_REASON])
            return
        if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
            raise end
    await websocket.close(GOING_AWAY, (frontend.mailbox.closed or "")[:LONGEST_REASON])


async def _show(
    websocket: WebSocket, frontend: Frontend, frame: Callable[[Packet], str | bytes]
) -> None:
    while packets := await frontend.mailbox.take():
        for packet in packets:
            framed = frame(packet)
            if isinstance(framed, str):
                await websocket.send_text(framed)
            else:
                await websocket.send_bytes(framed)


async def _hear(websocket: WebSocket, frontend: Frontend) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await frontend.say(_packet(websocket, message.get("bytes"), message.get("text")))


def _packet(websocket: WebSocket, data: bytes | None, text: str | None) -> Packet:
    binary = V1 in websocket.scope.get("subprotocols", [])
    try:
        if data is None:
            return from_legacy(text or "")
        return from_v1(data) if binary else from_legacy(data)
    except ValueError as error:
        raise InvalidRequest(f"expected a Jupyter message, got {error}") from None
