"""The bytes of a file as an answer: typed, versioned, in parts, never active content of ours."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.answers import whole
from api.callers import CallerGone, unless_gone
from api.problems import respond
from api.ranges import unchanged, wanted_range
from interpreter.errors import RangeNotSatisfiable
from interpreter.files import OpenFile

PIECE = 256 * 1024
PASSIVE = {
    "Content-Security-Policy": "sandbox allow-scripts allow-forms",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def content(request: Request, opened: OpenFile) -> Response:
    """The answer to a request for a file's content; it closes the file."""
    try:
        return _content(request, opened)
    except RangeNotSatisfiable as error:
        os.close(opened.fd)
        return respond(error, {"Content-Range": f"bytes */{opened.info.size}"})
    except BaseException:
        os.close(opened.fd)
        raise


def _content(request: Request, opened: OpenFile) -> Response:
    etag, size = opened.etag, opened.info.size
    headers = {
        **PASSIVE,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "Content-Type": guess_type(opened.info.name),
        "Content-Disposition": disposition(opened.info.name),
    }
    if unchanged(request.headers, etag):
        os.close(opened.fd)
        return Response(status_code=304, headers=headers)
    part = wanted_range(request.headers, etag, size) if request.method == "GET" else None
    start, end = part or (0, size)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Content(opened.fd, start, end, headers, 206 if part else 200)


class Content(Response):
    """Bytes `start` to `end` of a file descriptor, which it closes."""

    def __init__(
        self, fd: int, start: int, end: int, headers: dict[str, str], status_code: int
    ) -> None:
        super().__init__(status_code=status_code, headers=headers)
        self.fd = fd
        self.start = start
        self.end = end
        # What the kernel makes up as it is read (/proc) says that it is empty.
        self.unsized = end == 0 and bool(os.pread(fd, 1, 0))
        if self.unsized:
            del self.headers["content-length"]
        else:
            self.headers["content-length"] = str(end - start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            with suppress(CallerGone):
                if scope["method"] == "HEAD" or await unless_gone(receive, self._copy(send)):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(self.fd)

    async def _copy(self, send: Send) -> bool:
        """Send the bytes; whether all were there. A file that shrank cuts the connection."""
        position = self.start
        while self.unsized or position < self.end:
            length = PIECE if self.unsized else min(PIECE, self.end - position)
            piece = await self._read(length, position)
            if not piece:
                return self.unsized
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            position += len(piece)
        return True

    async def _read(self, length: int, position: int) -> bytes:
        if 0 < self.end <= PIECE:
            return os.pread(self.fd, length, position)
        return await asyncio.to_thread(os.pread, self.fd, length, position)


def guess_type(name: str) -> str:
    """A media type by the name; text is taken for UTF-8."""
    kind, packing = mimetypes.guess_type(whole(name).replace("/", "_"))
    if packing:
        return PACKED.get(packing, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def disposition(name: str) -> str:
    """`Content-Disposition` with the name in ASCII, and exactly where it is more (RFC 5987)."""
    plain = "".join(c if " " <= c < "\x7f" and c not in '"\\%' else "_" for c in name)
    value = f'inline; filename="{plain}"'
    if plain != name:
        value += f"; filename*=UTF-8''{quote(whole(name), safe='')}"
    return value
