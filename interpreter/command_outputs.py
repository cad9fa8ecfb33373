"""What a command writes to: a pair of FIFOs, read until nobody holds them any more."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from interpreter.spool import CHUNK, Spool

Sink = Callable[[str, bytes], None]
"""Takes what was written: "stdout" or "stderr", and bytes."""
STREAMS = {"stdout": "out", "stderr": "err"}


class CommandOutputs:
    """The pair of FIFOs a command writes to; what comes is in a file before anybody sees it.

    We hold a write end of each ourselves, so that they signal no end of file between two commands;
    letting go of it shows whether a job in the background still holds the other.
    """

    def __init__(self, number: int, fds: Mapping[str, int], directory: Path) -> None:
        """`fds` are the read ends by stream; `directory` is the service's own."""
        self.number = number
        self._loop = asyncio.get_running_loop()
        self._read = dict(fds)
        self._spools = {
            stream: Spool(directory / f"{number}.{name}") for stream, name in STREAMS.items()
        }
        self._write: dict[str, int] = {}
        self._sink: Sink | None = None
        self._keep = 0
        self._on_end: Callable[[], None] | None = None
        for fd in fds.values():
            os.set_blocking(fd, False)
            with suppress(PermissionError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)
        self._hold()

    def attach(self, sink: Sink, keep: int = 0) -> None:
        """For a new command. The last `keep` bytes of each stream can be had again."""
        for spool in self._spools.values():
            spool.clear()
        self._listen(sink, keep)

    def resume(self, sink: Sink, taken: Mapping[str, int], keep: int = 0) -> None:
        """For a command of an earlier service, which had recorded so many bytes."""
        for stream, spool in self._spools.items():
            for data in spool.rest(taken.get(stream, 0)):
                sink(stream, data)
        self._listen(sink, keep)

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
        self._sink = None
        self._hold()
        return True

    def linger(self, on_end: Callable[[], None]) -> None:
        """Go on reading for jobs in the background until they let go."""
        for fd in self._write.values():
            os.close(fd)
        self._write = {}
        self._on_end = on_end
        self._finish_if_closed()

    def close(self) -> None:
        """Nothing is written any more, or nobody wants it."""
        self._let_go()
        for spool in self._spools.values():
            spool.remove()

    def leave(self) -> None:
        """For another service to take up."""
        self._let_go()
        for spool in self._spools.values():
            spool.close()

    def _let_go(self) -> None:
        for fd in self._read.values():
            self._loop.remove_reader(fd)
            os.close(fd)
        for fd in self._write.values():
            os.close(fd)
        self._read, self._write = {}, {}

    def _listen(self, sink: Sink, keep: int) -> None:
        self._sink, self._keep = sink, keep
        for stream, fd in self._read.items():
            self._loop.add_reader(fd, self._readable, stream, fd)

    def _hold(self) -> None:
        for stream, fd in self._read.items():
            self._write[stream] = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)

    def _at_end(self, stream: str, fd: int) -> bool:
        try:
            while data := self._take(stream, fd):
                if self._sink:
                    self._sink(stream, data)
        except BlockingIOError:
            return False
        return True

    def _readable(self, stream: str, fd: int) -> bool:
        try:
            data = self._take(stream, fd)
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

    def _take(self, stream: str, fd: int) -> bytes:
        return self._spools[stream].take(fd, self._keep)

    def _finish_if_closed(self) -> None:
        if not self._read and self._on_end:
            self._on_end()
