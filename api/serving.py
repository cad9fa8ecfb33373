"""Serving the app: for `cellshell serve`, and as a part of another program."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from interpreter.interpreter import Interpreter
from interpreter.settings import Settings

GRACE = 3
"""Seconds that open streams get at the end."""


class Server(uvicorn.Server):
    """Leaves signals to the program that it is a part of."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            if listener.family != socket.AF_UNIX:
                # Inherited by connections: an answer in two parts would wait 40 ms for an ACK.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Server, Interpreter]]:
    """A server around a started app; what the app raises while it starts reaches the caller.

    Uvicorn's own logs stay out: they would name tokens in query strings.
    """
    async with Interpreter(settings) as interpreter:
        # Importing it takes a third of a second, in which the fork server imports what it needs.
        from api.app import create_app

        app = create_app(settings, interpreter)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        async with app.router.lifespan_context(app):
            yield Server(config), interpreter


@contextlib.asynccontextmanager
async def serving(settings: Settings, listener: socket.socket) -> AsyncIterator[None]:
    """Serves on a listening socket while the block runs."""
    async with running(settings) as (server, _):
        task = asyncio.create_task(server.serve([listener]), name="cellshell local service")
        try:
            yield
        finally:
            server.should_exit = True
            await task
