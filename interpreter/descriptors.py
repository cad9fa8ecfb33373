"""Non-blocking descriptors on the loop: `Reader` hands on what comes, `Writer` takes turns."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

CHUNK = 64 * 1024
MOST_IN_PIPE = 1024 * 1024
"""What a pipe holds at most, by default (`/proc/sys/fs/pipe-max-size`)."""
PAUSE = 0.002
"""Seconds between two reads: a flood is slowed to tens of megabytes a second, and what trickles
arrives in fewer pieces."""


Take = Callable[[int], int]
"""Takes what is in a descriptor now; how many bytes, 0 at its end. Raises BlockingIOError."""


def handing(on_data: Callable[[bytes], None]) -> Take:
    """Reads what arrives, and hands it on."""

    def take(fd: int) -> int:
        data = os.read(fd, CHUNK)
        if data:
            on_data(data)
        return len(data)

    return take


class Reader:
    """Has every piece that arrives taken by `take`; closes its descriptor at the end.

    What it costs to take in what comes is held to a share of the loop's time, however much comes.
    """

    def __init__(self, fd: int, take: Take) -> None:
        self._fd = fd
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._allowance = _Allowance(self._loop)
        self._pause: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._listen()

    def drain(self) -> None:
        """Read what is there now, however fast more is written."""
        self._read_up_to(MOST_IN_PIPE)

    def catch_up(self) -> None:
        """The same, unless reading has cost too much lately."""
        if not self._allowance.pause():
            self._read_up_to(MOST_IN_PIPE)

    def close(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        if self._pause:
            self._pause.cancel()
        os.close(self._fd)
        self._fd = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def _listen(self) -> None:
        self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        self._read_up_to(CHUNK)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            pause = max(PAUSE, self._allowance.pause())
            self._pause = self._loop.call_later(pause, self._listen)

    def _read_up_to(self, size: int) -> None:
        begun = self._loop.time()
        while size > 0 and (taken := self._read()):
            size -= taken
        self._allowance.spend(self._loop.time() - begun)

    def _read(self) -> int:
        """How many bytes there were to read."""
        if self._fd < 0:
            return 0
        try:
            size = self._take(self._fd)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: the last process that had this terminal open has closed it
            size = 0
        if not size:
            self.close()
        return size


class _Allowance:
    """Time that may be spent: a tenth of what passes, and a little in advance."""

    SHARE = 0.1
    ADVANCE = 0.05

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._debt = 0.0
        self._at = loop.time()

    def spend(self, seconds: float) -> None:
        self._settle()
        self._debt += seconds

    def pause(self) -> float:
        """Seconds until more may be spent."""
        self._settle()
        return max(0.0, self._debt - self.ADVANCE) / self.SHARE

    def _settle(self) -> None:
        passed, self._at = self._loop.time() - self._at, self._loop.time()
        self._debt = max(0.0, self._debt - passed * self.SHARE)


class Writer:
    """Writes in the order of the calls, each whole before the next; owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    async def write(self, data: bytes) -> None:
        """Returns when all is in the pipe. Raises BrokenPipeError when nobody can read it."""
        async with self._turn:
            rest = memoryview(data)
            while rest:
                if self.closed:
                    raise BrokenPipeError("closed")
                try:
                    rest = rest[os.write(self._fd, rest[:CHUNK]) :]
                except BlockingIOError:
                    await self._wait_for_room()

    async def finish(self) -> None:
        """Close, once what was asked to be written before is written."""
        async with self._turn:
            self.close()

    def close(self) -> None:
        """At once; whoever waits for room gets BrokenPipeError."""
        if self.closed:
            return
        self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._wake()

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(self._fd, self._wake)
        try:
            await self._room
        finally:
            self._room = None
            if not self.closed:
                self._loop.remove_writer(self._fd)

    def _wake(self) -> None:
        if self._room and not self._room.done():
            self._room.set_result(None)


class Bell:
    """Wakes all who wait.

    Who looks first and then waits, without an await between, misses nothing.
    """

    def __init__(self) -> None:
        self._rung: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._rung:
            with suppress(asyncio.InvalidStateError):
                self._rung.set_result(None)
            self._rung = None

    async def wait(self) -> None:
        if self._rung is None:
            self._rung = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._rung)
