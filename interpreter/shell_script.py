"""The pipe a shell reads its lines from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from interpreter import bash

PIPE_BUF = 4096
"""A write of so many bytes to a pipe happens as a whole or not at all."""

Place = Callable[[str, bytes], Awaitable[None]]
"""Writes a file in the box."""


class ScriptPipe:
    """What is written for a shell that has ended is of no use to anybody, and is dropped."""

    def __init__(self, fd: int, ended: asyncio.Future[int], directory: str, place: Place) -> None:
        self._fd = fd
        self._ended = ended
        self._lines = f"{directory}/lines"
        self._place = place

    async def tell(self, lines: str, run: str) -> None:
        """In one piece: bash has all of it, or the next service finds that it has nothing."""
        data = os.fsencode(lines + run)
        if len(data) > PIPE_BUF:
            await self._place(self._lines, os.fsencode(lines))
            data = os.fsencode(bash.source(self._lines) + run)
        await self.write(data)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._room()
            except BrokenPipeError:
                return

    def close(self) -> None:
        os.close(self._fd)

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[Any] = loop.create_future()
        loop.add_writer(self._fd, _done, writable)
        try:
            await asyncio.wait({writable, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(self._fd)


def _done(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
