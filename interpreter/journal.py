"""Append-only files of length-framed records, and readers that follow them.

A record is a u32 length and that many bytes. Records reach the file before anybody is told, so
whoever follows reads from the file, at a pace of its own: a slow reader costs no memory. A torn
tail, left by a service that was killed while it wrote, is cut when the journal is opened again.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 17
DENSE = 0.005
"""Seconds between two records, below which followers come for several at a time,"""
DENSE_AFTER = 20
"""once so many have come."""


class Journal:
    """One file being written. Not safe across threads; every call belongs to the event loop."""

    def __init__(self, path: Path, fd: int | None = None) -> None:
        """`fd` is of the file at `path`; without it, that is opened or made."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600) if fd is None else fd
        found = os.fstat(self._fd).st_size
        self.size = _whole(self._fd) if found else 0
        if self.size != found:
            os.ftruncate(self._fd, self.size)
        self._changed: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def append(self, *records: bytes) -> None:
        """Raises OSError when the disk is full; the file then ends with the last whole record."""
        data = b"".join(
            [part for record in records for part in (_LENGTH.pack(len(record)), record)]
        )
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self.size + written)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)
        self._wake()

    def close(self) -> None:
        """No record follows: followers end after the last one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._wake()

    async def follow(self) -> AsyncIterator[bytes]:
        """Every record from the first on, then new ones as they come, until `close()`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        buffer = bytearray()
        offset = dense = 0
        woken = 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                if dense > DENSE_AFTER and not self.closed:
                    await asyncio.sleep(DENSE)
                while offset < self.size:
                    chunk = os.pread(fd, min(_CHUNK, self.size - offset), offset)
                    if not chunk:
                        return
                    offset += len(chunk)
                    buffer += chunk
                    for record in _take(buffer):
                        yield record
                    if offset < self.size:
                        await asyncio.sleep(0)  # others have their turn
                if self.closed:
                    return
                await self._wait(offset)
                last, woken = woken, loop.time()
                dense = dense + 1 if woken - last < 2 * DENSE else 0
        finally:
            os.close(fd)

    async def _wait(self, offset: int) -> None:
        if offset < self.size:
            return
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


def records(path: Path) -> Iterator[bytes]:
    """The whole records of a file that may still be growing."""
    buffer = bytearray()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            buffer += chunk
            yield from _take(buffer)


def _take(buffer: bytearray) -> list[bytes]:
    """Cut the whole records off the front of `buffer`."""
    position, found = 0, []
    while len(buffer) - position >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer, position)
        end = position + _LENGTH.size + length
        if end > len(buffer):
            break
        found.append(bytes(buffer[position + _LENGTH.size : end]))
        position = end
    del buffer[:position]
    return found


def _whole(fd: int) -> int:
    """Where the last whole record ends."""
    position, size = 0, os.fstat(fd).st_size
    while position + _LENGTH.size <= size:
        (length,) = _LENGTH.unpack(os.pread(fd, _LENGTH.size, position))
        if position + _LENGTH.size + length > size:
            break
        position += _LENGTH.size + length
    return position
