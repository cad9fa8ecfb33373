"""What no route expected: bugs, told to the log alone, and a service that stops."""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.addresses import deleted_meanwhile
from api.auth import refuse
from interpreter.errors import CellshellError, ServiceStopping

logger = logging.getLogger(__name__)
STARTS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
)


class Failures:
    """ASGI middleware that has a problem document for everything that gets this far."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in STARTS
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except asyncio.CancelledError:
            # A server that stops cancels the requests that it has left, a sandbox its own work.
            if not started:
                await refuse(deleted_meanwhile(scope) or ServiceStopping(), scope, receive, send)
        except Exception as error:
            failure = unexpected(error)
            if not started:
                await refuse(failure, scope, receive, send)


def unexpected(error: Exception) -> CellshellError:
    """Log a bug by its kind and place, as its text may hold what users run; what to answer."""
    incident = secrets.token_hex(4)
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("incident %s: %s\n%s", incident, type(error).__qualname__, places)
    return CellshellError(
        f"this is a bug in the service; its log tells more under incident {incident}",
        incident=incident,
    )
