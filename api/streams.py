"""Server-sent events: numbered, kept alive, and ended by exactly one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.answers import encode
from api.callers import CallerGone, unless_gone
from api.failures import unexpected
from api.followers import close
from api.problems import document
from interpreter.errors import CellshellError
from interpreter.events import Event

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
HEARTBEAT = b": still here\n\n"
PAUSE = 0.005
"""Events that come within so many seconds of what was sent last are sent together."""
TOGETHER = 64 * 1024
"""Unless they are so many bytes."""


class EventStream(Response):
    """An answer that follows `events` until a terminal one, or until its reader has gone.

    `gone` is awaited when the reader went away first. Events that `may_end` need no terminal one.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[Event],
        *,
        heartbeat: float,
        may_end: bool = False,
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.events = events
        self.heartbeat = heartbeat
        self.may_end = may_end
        self.gone = gone
        self.number = 0
        self.sent_at = 0.0
        self._pending = bytearray()
        self._due = asyncio.Event()
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        if scope["method"] == "HEAD":
            await close(self.events)
        elif not await self._serve(receive, send):
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _serve(self, receive: Receive, send: Send) -> bool:
        """Send events; whether the reader stayed until the end."""
        self.sent_at = asyncio.get_running_loop().time()
        pulse = asyncio.create_task(self._beat(send))
        try:
            await unless_gone(receive, self._follow(send))
            await self._flush(send)
        except CallerGone:
            if self.gone:
                await self.gone()
            return False
        finally:
            pulse.cancel()
            await asyncio.gather(pulse, return_exceptions=True)
        return True

    async def _follow(self, send: Send) -> None:
        try:
            async for event in self.events:
                await self._send(send, event)
                if event.terminal:
                    return
            if not self.may_end:
                await self._fail(send, CellshellError("the events ended before the last one came"))
        except CellshellError as error:
            await self._fail(send, error)
        except Exception as error:
            await self._fail(send, unexpected(error))
        finally:
            await close(self.events)

    async def _fail(self, send: Send, error: CellshellError) -> None:
        await self._send(send, Event(self.number + 1, "error", document(error)))

    async def _send(self, send: Send, event: Event) -> None:
        alone = not self.number or self._silence() >= PAUSE
        self.number = event.number
        self._pending += written(event.number, event.name, event.data)
        if alone or event.terminal or len(self._pending) >= TOGETHER:
            await self._flush(send)
        else:
            self._due.set()

    async def _flush(self, send: Send) -> None:
        async with self._sending:  # in order
            body, self._pending = bytes(self._pending), bytearray()
            if body:
                self.sent_at = asyncio.get_running_loop().time()
                await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _beat(self, send: Send) -> None:
        """Send what waits for more to come with it, and signs of life."""
        while True:
            try:
                async with asyncio.timeout(max(0.0, self.heartbeat - self._silence())):
                    await self._due.wait()
            except TimeoutError:
                if self._silence() >= self.heartbeat:
                    self._pending += HEARTBEAT
            else:
                self._due.clear()
                await asyncio.sleep(max(0.0, PAUSE - self._silence()))
            await self._flush(send)

    def _silence(self) -> float:
        """Seconds since something was sent."""
        return asyncio.get_running_loop().time() - self.sent_at


def written(number: int, name: str, data: Mapping[str, Any]) -> bytes:
    """One event as it goes over the wire; JSON has no line breaks of its own."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name.encode(), encode(data))
