"""A Jupyter frontend as small as can be: one WebSocket, both forms of frames."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

V1 = "v1.kernel.websocket.jupyter.org"
Message = dict[str, Any]


class Lab:
    """Sends requests and keeps what comes."""

    def __init__(self, socket: ClientConnection, client: str) -> None:
        self.socket = socket
        self.client = client
        self.heard: list[Message] = []

    @property
    def binary(self) -> bool:
        return self.socket.subprotocol == V1

    async def send(
        self,
        channel: str,
        kind: str,
        content: Message,
        *,
        buffers: tuple[bytes, ...] = (),
        **m: Any,
    ) -> str:
        header = {
            "msg_id": str(uuid.uuid4()),
            "msg_type": kind,
            "session": self.client,
            "username": "",
            "version": "5.2",
            "date": "2026-01-01T00:00:00.000000Z",
            "subshell_id": None,
        }
        parts = [header, {}, m.get("metadata", {}), content]
        if self.binary:
            await self.socket.send(pack_v1([channel.encode(), *map(as_json, parts), *buffers]))
        else:
            names = ("header", "parent_header", "metadata", "content")
            message = {"channel": channel, "buffers": [], **dict(zip(names, parts, strict=True))}
            await self.socket.send(json.dumps(message))
        return str(header["msg_id"])

    async def execute(self, code: str, **options: Any) -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True}
        content |= {"stop_on_error": True, "user_expressions": {}, **options}
        return await self.send("shell", "execute_request", content, metadata={"cellId": "c"})

    async def next(self) -> Message:
        frame = await asyncio.wait_for(self.socket.recv(), 8)
        message = unpack_v1(frame) if isinstance(frame, bytes) else json.loads(frame)
        self.heard.append(message)
        return message

    async def until(self, kind: str, parent: str | None = None) -> Message:
        """The next message of that type, which may have come already."""
        seen = 0
        while True:
            while seen < len(self.heard):
                message = self.heard[seen]
                seen += 1
                if message["header"]["msg_type"] == kind and parent in (None, of(message)):
                    return message
            await self.next()

    async def run(self, code: str, **options: Any) -> tuple[Message, list[Message]]:
        """The reply to a cell, and its messages on iopub up to idle."""
        return await self.done(await self.execute(code, **options))

    async def done(self, id: str) -> tuple[Message, list[Message]]:
        reply = await self.until("execute_reply", id)
        while not any(map(is_idle, self.of(id))):
            await self.next()
        return reply["content"], [m for m in self.of(id) if m["channel"] == "iopub"]

    def of(self, id: str) -> list[Message]:
        return [message for message in self.heard if of(message) == id]


@asynccontextmanager
async def attached(
    base_url: str, kernel: str, *, client: str | None = None, binary: bool = True, **options: Any
) -> AsyncIterator[Lab]:
    client = client or uuid.uuid4().hex
    address = f"{base_url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels"
    protocols = [Subprotocol(V1)] if binary else None
    async with connect(
        f"{address}?session_id={client}", subprotocols=protocols, max_size=None, **options
    ) as socket:
        yield Lab(socket, client)


def of(message: Message) -> str | None:
    parent = message["parent_header"]
    return parent.get("msg_id") if parent else None


def is_idle(message: Message) -> bool:
    return message["content"].get("execution_state") == "idle"


def text_of(messages: list[Message]) -> str:
    return "".join(m["content"].get("text", "") for m in messages)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def pack_v1(parts: list[bytes]) -> bytes:
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def unpack_v1(frame: bytes) -> Message:
    (count,) = struct.unpack_from("<Q", frame)
    at = struct.unpack_from(f"<{count}Q", frame, 8)
    parts = [frame[at[i] : at[i + 1]] for i in range(count - 1)]
    names = ("header", "parent_header", "metadata", "content")
    message = dict(zip(names, map(json.loads, parts[1:5]), strict=True))
    return {"channel": parts[0].decode(), **message, "buffers": parts[5:]}
