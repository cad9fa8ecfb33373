"""Bytes of unknown length, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.callers import CallerGone, unless_gone
from api.followers import closing
from interpreter.errors import CellshellError


class Download(Response):
    """An answer made of pieces. Trouble halfway cuts the connection: nobody takes it for whole."""

    def __init__(
        self, pieces: AsyncIterator[bytes], headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        async with closing(self.pieces):
            await send(start)
            with suppress(CallerGone, CellshellError):
                if scope["method"] != "HEAD":
                    await unless_gone(receive, self._send(send))
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        async for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
