"""What a command writes to: a pair of FIFOs, read until nobody holds them any more."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

Sink = Callable[[str, bytes], None]
"""Takes what was written: "stdout" or "stderr", and bytes."""
_READ = 1 << 18


class CommandOutputs:
    """The pair of FIFOs a command writes to.

    We hold a write end of each ourselves, so that they signal no end of file between two commands;
    letting go of it shows whether a job in the background still holds the other.
    """

    def __init__(self, number: int, fds: list[int]) -> None:
        self.number = number
        self._loop = asyncio.get_running_loop()
        self._read = dict(zip(("stdout", "stderr"), fds, strict=True))
        self._write: dict[str, int] = {}
        self._sink: Sink | None = None
        self._on_end: Callable[[], None] | None = None
        for fd in fds:
            os.set_blocking(fd, False)
            with suppress(PermissionError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _READ)
        self._hold()

    def attach(self, sink: Sink) -> None:
        self._sink = sink
        for stream, fd in self._read.items():
            self._loop.add_reader(fd, self._readable, stream, fd)

    def drain(self) -> None:
        """Take in all that was written until now."""
        for stream, fd in list(self._read.items()):
            while self._readable(stream, fd):
                continue

    def settle(self) -> bool:
        """After a command: True when nobody holds the FIFOs, and they can be used again."""
        for fd in self._write.values():
            os.close(fd)
        self._write = {}
        held = [stream for stream, fd in self._read.items() if not self._at_end(stream, fd)]
        if held:
            return False
        for fd in self._read.values():
            self._loop.remove_reader(fd)
        self._hold()
        return True

    def linger(self, on_end: Callable[[], None]) -> None:
        """Go on reading for jobs in the background until they let go."""
        self._on_end = on_end
        self._finish_if_closed()

    def close(self) -> None:
        for fd in self._read.values():
            self._loop.remove_reader(fd)
            os.close(fd)
        for fd in self._write.values():
            os.close(fd)
        self._read, self._write = {}, {}

    def _hold(self) -> None:
        for stream, fd in self._read.items():
            self._write[stream] = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)

    def _at_end(self, stream: str, fd: int) -> bool:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if data and self._sink:
            self._sink(stream, data)
            return self._at_end(stream, fd)
        return not data

    def _readable(self, stream: str, fd: int) -> bool:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if data:
            if self._sink:
                self._sink(stream, data)
            return True
        self._loop.remove_reader(fd)
        os.close(fd)
        del self._read[stream]
        self._finish_if_closed()
        return False

    def _finish_if_closed(self) -> None:
        if not self._read and self._on_end:
            self._on_end()
