"""A WebSocket to a server in a sandbox: two connections, and messages carried between them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Origin, Subprotocol

from api.port_headers import Way, inwards
from api.races import race
from interpreter.errors import PortUnreachable

ANSWER_SECONDS = 30.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
HANDSHAKE = b"sec-websocket-"
FAILED, TOO_BIG = 1011, 1009
UNSPEAKABLE = {1005, 1006, 1015}
"""Close codes that no frame may carry."""


async def carry(websocket: WebSocket, way: Way, connection: socket.socket) -> None:
    """Until one side closes, which the other is told with its code and reason.

    `connection` is closed here. Raises PortUnreachable.
    """
    try:
        server = await _open(websocket, way, connection)
    except InvalidStatus as error:
        await _deny(websocket, error)
        return
    try:
        await websocket.accept(server.subprotocol)
        await _both(websocket, server)
    finally:
        server.transport.abort()
        with suppress(ConnectionClosed):
            await server.wait_closed()


async def _open(websocket: WebSocket, way: Way, connection: socket.socket) -> ClientConnection:
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in inwards(websocket, way)
        if not name.startswith(HANDSHAKE) and name not in (b"host", b"origin")
    ]
    origin = f"http://{way.host}" if "origin" in websocket.headers else None
    offered = [Subprotocol(each) for each in websocket.scope.get("subprotocols", [])]
    try:
        return await connect(
            f"ws://{way.host}{way.target}",
            sock=connection,
            origin=Origin(origin) if origin else None,
            subprotocols=offered or None,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=ANSWER_SECONDS,
            ping_interval=None,
            max_size=MAX_MESSAGE_BYTES,
            process_exception=lambda error: error,
        )
    except InvalidStatus:
        raise
    except (InvalidHandshake, InvalidMessage, OSError, EOFError, ValueError) as error:
        # A ValueError: it answered with a redirect, which is not followed.
        raise PortUnreachable(
            f"the server on port {way.port} opened no WebSocket: {error}", port=way.port
        ) from None


async def _deny(websocket: WebSocket, error: InvalidStatus) -> None:
    """What the server answers instead of a WebSocket: a status, which tells enough."""
    status = error.response.status_code
    status = status if 400 <= status < 600 else 502
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(Response(status_code=status))
    else:
        await websocket.close(FAILED, f"the server answered {status}")


async def _both(websocket: WebSocket, server: ClientConnection) -> None:
    ends = await race(_upwards(websocket, server), _downwards(websocket, server))
    await _end(websocket, ends)


async def _upwards(websocket: WebSocket, server: ClientConnection) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or 1000
            code = 1000 if code in UNSPEAKABLE else code
            await server.close(code, (message.get("reason") or "")[:60])
            return
        data = message.get("bytes")
        await server.send(data if data is not None else message["text"])


async def _downwards(websocket: WebSocket, server: ClientConnection) -> None:
    while True:
        data = await server.recv()
        if isinstance(data, str):
            await websocket.send_text(data)
        else:
            await websocket.send_bytes(data)


async def _end(websocket: WebSocket, ends: Sequence[object]) -> None:
    """Tell the caller how the server closed."""
    states = {websocket.client_state, websocket.application_state}
    if states != {WebSocketState.CONNECTED}:
        return
    for end in ends:
        if isinstance(end, ConnectionClosed):
            code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (FAILED, "")
            if end.sent and not end.rcvd_then_sent:
                code, reason = end.sent.code, end.sent.reason
            await websocket.close(1000 if code in UNSPEAKABLE else code, reason)
            return
        if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
            raise end
