"""Files, from the client's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Protocol, overload

from interpreter.client_problems import build, parse, parse_list
from interpreter.client_transport import Call, Transport
from interpreter.errors import FileNotFound, InvalidRequest, NotADirectory
from interpreter.events import Event
from interpreter.models import Checkout, FileInfo, GitCheckout, MakeDirectory, Transfer

PIECE = 1 << 20


class Readable(Protocol):
    """A file open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Data = str | bytes | Readable | Iterable[bytes] | AsyncIterable[bytes]
"""What a file can be written from; text is written as UTF-8."""


class FileCalls:
    """The calls about files that a session and a sandbox share.

    Paths are absolute, or relative to the session's working directory; `~` is its home.
    """

    _transport: Transport
    _session_path: str

    async def write_file(
        self, path: str, data: Data, *, mode: str | None = None, append: bool = False
    ) -> FileInfo:
        """Writes a whole file at once, with its parents; `append` adds to what is there."""
        params = {"path": path, "mode": mode, "append": append or None}
        call = Call("PUT", f"{self._session_path}/files/content", params, content=pieces(data))
        return parse(FileInfo, await self._transport.send(call))

    @overload
    async def read_file(self, path: str, *, encoding: None = None) -> bytes: ...

    @overload
    async def read_file(self, path: str, *, encoding: str) -> str: ...

    async def read_file(self, path: str, *, encoding: str | None = None) -> bytes | str:
        """The bytes of a file, or with an `encoding` its text."""
        content = (await self._transport.get(*self._content(path))).content
        return content if encoding is None else content.decode(encoding)

    def read_file_stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a file of any size, piece by piece."""
        return self._transport.body(Call("GET", *self._content(path)))

    async def mkdir(self, path: str, *, recursive: bool = True) -> FileInfo:
        body = build(MakeDirectory, path=path, recursive=recursive)
        return parse(
            FileInfo, await self._transport.post(f"{self._session_path}/files/mkdir", body)
        )

    async def delete_file(self, path: str, *, recursive: bool = False) -> None:
        """Deletes a file, a link or an empty directory; `recursive`: with what is in it."""
        params = {"path": path, "recursive": recursive or None}
        await self._transport.delete(f"{self._session_path}/files", params)

    async def rename_file(
        self, source: str, destination: str, *, overwrite: bool = False
    ) -> FileInfo:
        return await self._transfer("move", source, destination, overwrite)

    async def move_file(
        self, source: str, destination: str, *, overwrite: bool = False
    ) -> FileInfo:
        return await self._transfer("move", source, destination, overwrite)

    async def copy_file(
        self, source: str, destination: str, *, overwrite: bool = False
    ) -> FileInfo:
        return await self._transfer("copy", source, destination, overwrite)

    async def list_files(
        self, path: str | None = None, *, recursive: bool = False, hidden: bool = False
    ) -> list[FileInfo]:
        """The entries of a directory, by default the session's working directory."""
        params = {"path": path, "recursive": recursive or None, "hidden": hidden or None}
        return parse_list(
            FileInfo, await self._transport.get(f"{self._session_path}/files", params)
        )

    async def file_info(self, path: str) -> FileInfo:
        answer = await self._transport.get(f"{self._session_path}/files/info", {"path": path})
        return parse(FileInfo, answer)

    async def exists(self, path: str) -> bool:
        try:
            await self.file_info(path)
        except (FileNotFound, NotADirectory):
            return False
        return True

    def watch(self, path: str, *, recursive: bool = False) -> AsyncGenerator[Event, None]:
        """What changes at a path: `created`, `modified`, `deleted`, `moved`; without end."""
        params = {"path": path, "recursive": recursive or None}
        call = Call("GET", f"{self._session_path}/files/watch", params)
        return self._transport.events(call, last=frozenset())

    def download_archive(self, path: str) -> AsyncGenerator[bytes, None]:
        """A directory as a tar archive, piece by piece."""
        call = Call("GET", f"{self._session_path}/files/archive", {"path": path})
        return self._transport.body(call)

    async def upload_archive(self, path: str, data: Data) -> FileInfo:
        """Extracts a tar archive into a directory; refused as a whole when a member is unsafe."""
        params = {"path": path}
        call = Call("PUT", f"{self._session_path}/files/archive", params, content=pieces(data))
        return parse(FileInfo, await self._transport.send(call))

    async def git_checkout(
        self,
        url: str,
        *,
        branch: str | None = None,
        directory: str | None = None,
        depth: int | None = None,
        timeout: float | None = None,
    ) -> Checkout:
        """Clones a repository, under the network policy of the sandbox."""
        fields = {"branch": branch, "directory": directory, "depth": depth, "timeout": timeout}
        body = build(GitCheckout, url=url, **fields)
        answer = await self._transport.post(f"{self._session_path}/git/checkout", body)
        return parse(Checkout, answer)

    async def _transfer(
        self, verb: str, source: str, destination: str, overwrite: bool
    ) -> FileInfo:
        body = build(Transfer, source=source, destination=destination, overwrite=overwrite)
        answer = await self._transport.post(f"{self._session_path}/files/{verb}", body)
        return parse(FileInfo, answer)

    def _content(self, path: str) -> tuple[str, dict[str, str]]:
        return f"{self._session_path}/files/content", {"path": path}


def pieces(data: Data) -> bytes | AsyncIterable[bytes]:
    """Data in the shape that an asynchronous request body takes."""
    if isinstance(data, str):
        return _encoded(data)
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, AsyncIterable):
        return data
    if hasattr(data, "read"):
        return _in_thread(iter(lambda: data.read(PIECE), b""))
    if isinstance(data, Iterable):
        return _in_thread(iter(data))
    raise InvalidRequest(
        f"expected text, bytes, a file open for reading bytes, or an iterable of bytes, got "
        f"{type(data).__name__}"
    )


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("expected valid Unicode text, got a lone surrogate") from None


async def _in_thread(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        if not isinstance(piece, bytes):
            raise InvalidRequest(f"expected pieces of bytes, got {type(piece).__name__}")
        yield piece
