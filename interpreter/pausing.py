"""Stopping everything in a box, and letting it go on.

By signals, which every tier has. What the user had stopped himself is not let go on: only what was
stopped here, which is written down before it is done, so that the next service can undo it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from interpreter.errors import DiskFull, NotReady
from interpreter.family import below, look

PASSES, BETWEEN = 500, 0.002
"""How often what has been forked meanwhile is looked for, and after how many seconds again."""
OVER = b"TtZXx"


class Pause:
    """Of one sandbox. `path` is where the stopped are written down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped: list[tuple[int, int]] = []
        self.active = path.exists()
        with suppress(FileNotFoundError, ValueError, TypeError):
            self._stopped = [
                (int(pid), int(started)) for pid, started in json.loads(path.read_text())
            ]

    async def begin(self, root: int, spare: Collection[int] = ()) -> None:
        """Stop all below `root`, parents first; not what is below `spare`.

        Raises DiskFull, and NotReady when something does not stop: nothing is paused then.
        """
        try:
            await self._stop(root, spare)
        except OSError as error:
            self.end()
            raise DiskFull(f"whom to wake cannot be written down: {error}") from error

    async def _stop(self, root: int, spare: Collection[int]) -> None:
        self._save()
        self.active = True
        for _ in range(PASSES):
            running = [each for each in below(root, spare) if each.state not in OVER]
            if not running:
                return
            told = set(self._stopped)
            new = [each for each in running if (each.pid, each.started) not in told]
            self._stopped += [(each.pid, each.started) for each in new]
            self._save()
            for each in running:  # those that were told too: a neighbour may let them go on
                _signal(each.pid, each.started, signal.SIGSTOP)
            await asyncio.sleep(BETWEEN)
        self.end()
        raise NotReady("something in the sandbox cannot be stopped now: it goes on, try again")

    def end(self) -> None:
        """Children first: a shell that wakes up finds nothing of its own stopped."""
        for pid, started in reversed(self._stopped):
            _signal(pid, started, signal.SIGCONT)
        self._stopped = []
        self._path.unlink(missing_ok=True)
        self.active = False

    def _save(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._stopped))
        partial.replace(self._path)


def _signal(pid: int, started: int, number: int) -> None:
    """Only to the very process that was seen: its number may belong to another one by now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        seen = look(pid)
        if seen and seen.started == started:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)
