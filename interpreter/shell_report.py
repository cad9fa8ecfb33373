"""The pipe on which a shell reports: each report is written from open to close."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from interpreter.bash import Report, read_report
from interpreter.spool import Spool

MAX_REPORT = 8 << 20


class ReportPipe:
    """`on_report` is called at the end of each report; `text` holds it until `clear`.

    Between two reports we hold a write end ourselves, so that the pipe signals no end of file.
    """

    def __init__(self, fd: int, path: Path, on_report: Callable[[], None]) -> None:
        self._fd = fd
        self._spool = Spool(path)
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._holding: int | None = None
        self.text = bytearray()
        self._last: tuple[bytes, Report | None] = (b"", None)

    def listen(self) -> None:
        """From the first report on."""
        self._hold()
        self._loop.add_reader(self._fd, self._readable)

    def resume(self) -> bool:
        """Go on for an earlier service; whether a whole report is there already."""
        for data in self._spool.rest(0):
            self._add(data)
        try:
            while data := self._spool.take(self._fd):
                self._add(data)
        except BlockingIOError:  # it is still being written
            self._loop.add_reader(self._fd, self._readable)
            return False
        self.listen()
        return bool(self.text)

    def catch_up(self) -> None:
        """Take in what is there now."""
        self._readable()

    def read(self) -> Report | None:
        """None when it is not one, or longer than `MAX_REPORT`.

        A shell mostly says what it said before: that is not parsed again.
        """
        text = bytes(self.text) if len(self.text) < MAX_REPORT else b""
        if text != self._last[0]:
            self._last = (text, read_report(text))
        return self._last[1]

    def clear(self) -> None:
        self.text.clear()
        self._spool.clear()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._spool.close()
        self._let_go()

    def _readable(self) -> None:
        while True:
            try:
                data = self._spool.take(self._fd)
            except BlockingIOError:
                return
            if not data:
                self._hold()
                self._on_report()
                return
            self._add(data)
            self._let_go()

    def _add(self, data: bytes) -> None:
        self.text += data[: MAX_REPORT - len(self.text)]

    def _hold(self) -> None:
        if self._holding is None:
            self._holding = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK)

    def _let_go(self) -> None:
        if self._holding is not None:
            os.close(self._holding)
            self._holding = None
