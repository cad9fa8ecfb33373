"""A question to a shell that an earlier service started: how are you now?"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from interpreter import bash
from interpreter.box import Box
from interpreter.shell_ledger import Modes
from interpreter.shell_report import ReportPipe


class Probe:
    """bash answers `line` on a pipe of its own, after all it was told before.

    The pipe stays until bash has answered: opening one that nobody reads would block it, and
    writing to one would end it.
    """

    def __init__(self, box: Box, directory: str, records: Path) -> None:
        self._box = box
        self._path = f"{directory}/probe"
        self._spool = records / "probe"
        self.line = f"{bash.report(self._path)}\n".encode()
        self.report: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it has answered."""

    async def open(self) -> Self:
        with suppress(FileNotFoundError):
            await self._box.unlink(self._path)
        await self._box.mkfifo(self._path)
        fd = await self._box.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._pipe = ReportPipe(fd, self._spool, self._answered)
        self._pipe.clear()
        self._pipe.listen()
        return self

    def close(self) -> None:
        """With the shell, or once it has answered."""
        self._pipe.close()

    def of(self, modes: Modes) -> bash.Report:
        """The answer, with what bash cannot tell between two commands."""
        answer = self._pipe.read() or bash.UNKNOWN
        return replace(
            answer,
            gone=False,
            status=modes.status,
            posix=modes.posix,
            aliases=modes.aliases,
            inherit_errexit=modes.inherit_errexit,
        )

    def _answered(self) -> None:
        if not self.report.done():
            self.report.set_result(None)
