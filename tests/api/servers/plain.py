"""A server by hand, which says what well-behaved ones do not: `plain.py PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
OK = "HTTP/1.1 200 OK\r\n"
RAW = {
    "/204": "HTTP/1.1 204 No Content\r\n\r\n",
    "/304": "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "/103": f"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}Content-Length: 2\r\n\r\nhi",
    "/close": "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "/garbage": "nothing like it\r\n\r\n",
    "/silent": "",
    "/cut": f"{OK}Content-Length: 100\r\n\r\nonly this",
    "/huge": f"{OK}X: " + "a" * 200_000,
    "/many": OK + "".join(f"X-{i}: 1\r\n" for i in range(20_000)),
    "/split": f"{OK}X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "/lengths": f"{OK}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "/upgrade": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "/early": "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
    "/headers": f"{OK}Set-Cookie: a=1\r\nService-Worker-Allowed: /\r\nClear-Site-Data: *\r\n"
    "Content-Security-Policy: default-src 'self'\r\nX-Content-Type-Options: no\r\nX-Mine: 1\r\n"
    "X-Mine: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\n"
    "Content-Length: 0\r\n\r\n",
}


async def body_of(reader: Reader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return
    left = int(headers.get("content-length", 0))
    while left and (piece := await reader.read(min(left, 65536))):
        left -= len(piece)
        yield piece


async def answer(reader: Reader, writer: Writer) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    pairs = [line.split(": ", 1) for line in head[1:] if line]
    headers = {name.lower(): value for name, value in pairs}
    path = target.partition("?")[0]
    if path in SPECIAL:
        await SPECIAL[path](writer, headers)
    elif path in RAW:
        writer.write(RAW[path].encode("latin-1"))
    else:
        size = 0
        async for piece in body_of(reader, headers):
            size += len(piece)
        told = {"method": method, "target": target, "headers": pairs, "body": size}
        data = json.dumps(told).encode()
        kind = b"Content-Type: application/json\r\n"
        writer.write(OK.encode() + kind + b"Content-Length: %d\r\n\r\n" % len(data))
        writer.write(data if method != "HEAD" else b"")
    await writer.drain()
    writer.close()


async def redirect(writer: Writer, headers: dict[str, str]) -> None:
    to = headers["x-to"]
    answer = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
    writer.write(answer.encode())


async def events(writer: Writer, headers: dict[str, str]) -> None:
    head = f"{OK}Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    for number in range(3):
        event = f"data: {number}\n\n"
        writer.write(f"{len(event):x}\r\n{event}\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.2)
    writer.write(b"0\r\n\r\n")


async def large(writer: Writer, headers: dict[str, str]) -> None:
    writer.write(OK.encode() + b"Content-Length: 50000000\r\n\r\n")
    for _ in range(50):
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def endless(writer: Writer, headers: dict[str, str]) -> None:
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        writer.write(b"y" * 100_000)
        await writer.drain()


async def stuck(writer: Writer, headers: dict[str, str]) -> None:
    await writer.wait_closed()


async def slow(writer: Writer, headers: dict[str, str]) -> None:
    writer.write(OK.encode() + b"Content-Length: 2\r\n\r\n")
    await asyncio.sleep(1.5)
    writer.write(b"hi")


SPECIAL = {
    "/redirect": redirect,
    "/events": events,
    "/large": large,
    "/endless": endless,
    "/stuck": stuck,
    "/slow": slow,
}


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
