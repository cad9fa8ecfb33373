"""Files without a name, made ahead of need.

An ext4 file system takes up to half a millisecond to find an inode (without a journal it passes
over all that were freed in the last seconds) and a thirtieth of that to give it a name: a command
or a cell that made its own record would wait longer for that than for bash.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from interpreter.journal import Journal

MOST = 64
BATCH = 4
"""Made at a time: they cost a processor's time that a run may be waiting for."""


class Blanks:
    """For the journals of a service. Where none is left, a journal makes a file of its own.

    Some file systems know no files without a name: there, each does.
    """

    def __init__(self, directory: Path) -> None:
        """`directory` is on the file system of the journals; nothing is ever to be seen in it."""
        self._directory = directory
        self._ready: deque[int] = deque()
        self._making: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._ready)

    def journal(self, path: Path) -> Journal:
        """A new one. Raises OSError when the disk is full."""
        fd = self._ready.popleft() if self._ready else None
        self.refill()
        if fd is not None:
            try:
                # With a directory's descriptor, link follows the way to what is open there.
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
            except OSError:
                os.close(fd)
            else:
                return Journal(path, fd)
        return Journal(path)

    def refill(self) -> None:
        """In a thread, some at a time."""
        if len(self._ready) <= MOST - BATCH and self._making is None:
            self._making = asyncio.create_task(self._make(), name="blanks")

    async def close(self) -> None:
        if self._making is not None:
            await asyncio.wait({self._making})
        while self._ready:
            os.close(self._ready.popleft())

    async def _make(self) -> None:
        try:
            with suppress(OSError):  # of a full disk, the next journal tells
                await asyncio.to_thread(self._fill)
        finally:
            self._making = None

    def _fill(self) -> None:
        for _ in range(BATCH):
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            self._ready.append(os.open(self._directory, flags, 0o600))
