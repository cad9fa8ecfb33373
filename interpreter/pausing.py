"""Stopping everything in a box, and letting it go on.

By a control group where the service may use one, else by signals, which every tier has. What the
user had stopped himself is not let go on. While a sandbox is paused there is a file that says so,
to the next service too, also while that one has it go on for a moment to take it up.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from interpreter.box import Box
from interpreter.cgroup import Group
from interpreter.clock import Clock
from interpreter.errors import DiskFull, NotReady
from interpreter.family import Seen, below, look
from interpreter.freezer import Freezer

PASSES, BETWEEN = 500, 0.002
"""How often what has been forked meanwhile is looked for, and after how many seconds again."""
STILL = b"Tt"


async def nothing(_: Box) -> None:
    pass


class Pause:
    """Of one sandbox. `path` is the file; `group` the control group of its box."""

    def __init__(self, path: Path, group: Group) -> None:
        self._path = path
        self._group = group
        self._signals = Signals(path)
        self._clock: Clock | None = None
        self.active = path.exists()

    async def begin(
        self,
        box: Box,
        spare: Collection[int] = (),
        *,
        first: Callable[[Box], Awaitable[None]] = nothing,
    ) -> None:
        """Stop all in the box but init; not what is below `spare`. Whoever asks now wakes it.

        `first` ends what could not end while it stands still: SIGKILL does not reach a process in a
        freezer of version 1. Raises DiskFull, and NotReady when something does not stop: nothing is
        paused then.
        """
        try:
            self._signals.save()
            self.active, self._clock = True, box.clock
            self._clock.stop()
            await first(box)
            await self._stop(lambda: below(box.host_pid, spare))
        except OSError as error:
            self.end()
            raise DiskFull(f"whom to wake cannot be written down: {error}") from error
        except BaseException:
            self.end()
            raise

    async def _stop(self, seen: Callable[[], list[Seen]]) -> None:
        def wanted() -> list[Seen]:
            if not self.active:
                raise NotReady("the sandbox is being ended")
            return seen()

        if freezer := self._group.freezer:
            await freeze(freezer, wanted)
        else:
            await until_still(lambda: self._signals.hold(wanted()))

    @asynccontextmanager
    async def lifted(self, box: Callable[[], Box | None]) -> AsyncIterator[None]:
        """Of a paused sandbox: it goes on for so long. Its file stays, and its clock stands still.

        Raises DiskFull and NotReady when it cannot be stopped again.
        """
        paused = self.active
        self._wake()
        try:
            yield
        finally:
            found = box()
            if paused and found and not found.ended.done():
                await self.begin(found)
            else:
                self.end()

    def end(self) -> None:
        self._wake()
        if self._clock:
            self._clock.go()
        self._path.unlink(missing_ok=True)

    def _wake(self) -> None:
        self._signals.wake()
        if freezer := self._group.freezer:
            freezer.thaw()
        self.active = False


async def freeze(freezer: Freezer, seen: Callable[[], list[Seen]]) -> None:
    """Stop whoever is seen. Raises NotReady; then some may stand still."""
    try:
        freezer.freeze()
        await until_still(lambda: freezer.hold(seen()))
    except OSError as error:
        raise NotReady(f"the control group stops nobody: {error.strerror}") from error


async def until_still(hold: Callable[[], bool]) -> None:
    for _ in range(PASSES):
        if hold():
            return
        await asyncio.sleep(BETWEEN)
    raise NotReady("something in the sandbox cannot be stopped now: it goes on, try again")


class Signals:
    """Whom it stops is written down before, so that the next service can let them go on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._still: set[tuple[int, int]] = set()
        self._stopped: list[tuple[int, int]] = []
        with suppress(FileNotFoundError, ValueError, TypeError):
            self._stopped = [
                (int(pid), int(started)) for pid, started in json.loads(path.read_text())
            ]

    def hold(self, seen: Collection[Seen]) -> bool:
        """Stop them, parents first; whether they all stood still already. Raises OSError.

        Also those that were seen the last time: who had stopped by the time it was looked at may
        have forked after the processes had been listed.
        """
        running = [each for each in seen if each.state not in STILL and not each.over]
        told = set(self._stopped)
        new = [(each.pid, each.started) for each in running]
        self._stopped += [each for each in new if each not in told]
        if running:
            self.save()
        for each in running:  # those that were told too: a neighbour may let them go on
            _signal(each.pid, each.started, signal.SIGSTOP)
        before = self._still
        self._still = set() if running else {(each.pid, each.started) for each in seen}
        return not running and self._still <= before

    def wake(self) -> None:
        """Children first: a shell that wakes up finds nothing of its own stopped."""
        for pid, started in reversed(self._stopped):
            _signal(pid, started, signal.SIGCONT)
        self._stopped, self._still = [], set()

    def save(self) -> None:
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
