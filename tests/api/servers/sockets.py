"""A WebSocket server: tells what it was asked, and gives back what it gets (`sockets.py PORT`)."""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol


async def answer(connection: ServerConnection) -> None:
    request = connection.request
    assert request
    if request.path == "/close":
        await connection.close(4321, "enough")
        return
    headers = list(request.headers.raw_items())
    told = {"path": request.path, "headers": headers, "chosen": connection.subprotocol}
    await connection.send(json.dumps(told))
    try:
        async for message in connection:
            await connection.send(message)
    finally:
        print("closed", connection.close_code, connection.close_reason, flush=True)  # noqa: T201


def choose(connection: ServerConnection, offered: list[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("one") if "one" in offered else None


async def refuse(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(403, "no\n") if request.path == "/forbidden" else None


async def main() -> None:
    async with serve(
        answer,
        *("127.0.0.1", int(sys.argv[1])),
        subprotocols=[Subprotocol("one")],
        select_subprotocol=choose,
        process_request=refuse,
        max_size=None,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
