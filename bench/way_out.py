"""The egress proxy beside a connection without it, to a server on this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from interpreter.egress import EgressProxy
from interpreter.network_policy import ListedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
HOST = "127.0.0.1"


class WayOut:
    """GETs of a server, by way of the proxy and straight."""

    def __init__(self, proxy: int, server: int) -> None:
        self._proxy = proxy
        self._server = server

    def proxied(self) -> None:
        request = f"GET http://{HOST}:{self._server}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        self._get(self._proxy, request)

    def straight(self) -> None:
        self._get(self._server, f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")

    def _get(self, port: int, request: str) -> None:
        answer = b""
        with socket.create_connection((HOST, port)) as connection:
            connection.sendall(request.encode())
            while data := connection.recv(4096):
                answer += data
        if not answer.endswith(b"\r\n\r\nhi"):
            raise RuntimeError(f"the proxy answered something else: {answer!r}")


@contextmanager
def way_out() -> Iterator[WayOut]:
    """Proxy and server in a thread of their own, as the proxy of a sandbox is the service's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stop = asyncio.Event()
    ready: asyncio.Future[WayOut] = loop.create_future()
    serving = asyncio.run_coroutine_threadsafe(_serve(ready, stop), loop)
    try:
        yield asyncio.run_coroutine_threadsafe(_result(ready), loop).result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        serving.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _result(ready: asyncio.Future[WayOut]) -> WayOut:
    return await ready


async def _serve(ready: asyncio.Future[WayOut], stop: asyncio.Event) -> None:
    server = await asyncio.start_server(_answer, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    policy = ListedNetwork([f"{HOST}:{port}"])
    async with server, EgressProxy(policy, allow_private=[HOST]) as proxy:
        listener = socket.create_server((HOST, 0))
        await proxy.serve(listener)
        ready.set_result(WayOut(listener.getsockname()[1], port))
        await stop.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    writer.close()
