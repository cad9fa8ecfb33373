"""Writing what arrives to a descriptor, without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

PIECE = 1 << 20
SMALL = 256 * 1024


async def fill(fd: int, chunks: AsyncIterable[bytes]) -> None:
    """Write all chunks. Raises OSError as write(2); nothing is being written when it returns."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= PIECE:
            await _finish(_write, fd, bytes(gathered))
            gathered.clear()
    if len(gathered) <= SMALL:
        _write(fd, bytes(gathered))
    else:
        await _finish(_write, fd, bytes(gathered))


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


async def _finish(work: Callable[[int, bytes], None], fd: int, data: bytes) -> None:
    """In a thread, to its end: a descriptor closed under it might soon be another file's."""
    future = asyncio.get_running_loop().run_in_executor(None, work, fd, data)
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        future.exception()
        raise cancelled
    future.result()
