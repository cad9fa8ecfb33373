"""How long a box has been running: a clock that stands still while the box is paused.

What is running when the service ends has to end on time under the next one, so the pauses are
written down, in seconds since boot.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

KEPT = 1000
"""Pauses that are told apart; beyond it the two oldest count as one."""


def boot_time() -> float:
    """Seconds since boot: goes on whatever becomes of this process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Of one box. `path` is where it writes its pauses down, for the next service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pauses: list[tuple[float, float]] = []
        self._stopped_at: float | None = None
        self._alarms: set[Alarm] = set()
        with suppress(OSError, ValueError, TypeError, KeyError):
            self._read()

    def since(self, instant: float) -> float:
        """Seconds it has been running since `instant`, which is in seconds since boot."""
        end = boot_time() if self._stopped_at is None else self._stopped_at
        paused = sum(max(0.0, b - max(a, instant)) for a, b in self._pauses)
        return max(0.0, end - instant - paused)

    def stop(self) -> None:
        """Raises OSError where that cannot be written down; it has stopped nevertheless."""
        if self._stopped_at is None:
            self._stopped_at = boot_time()
            for alarm in self._alarms:
                alarm.hold()
        self._save()

    def go(self) -> None:
        """What cannot be written down is forgotten: a time-out may then come too early, after
        the service was started again, and nothing waits for ever."""
        if self._stopped_at is None:
            return
        self._pauses.append((self._stopped_at, boot_time()))
        self._stopped_at = None
        if len(self._pauses) > KEPT:
            (a, b), (c, d), *rest = self._pauses
            self._pauses = [(c - (b - a), d), *rest]
        for alarm in self._alarms:
            alarm.arm()
        try:
            self._save()
        except OSError:
            self._path.unlink(missing_ok=True)

    def call_later(self, seconds: float | None, call: Callable[[], object]) -> Alarm:
        """Have `call` made when it has been running for so long from now on; None: never."""
        alarm = Alarm(seconds, call, self._alarms)
        if seconds is not None:
            self._alarms.add(alarm)
            if self._stopped_at is None:
                alarm.arm()
        return alarm

    async def wait(self, futures: Iterable[asyncio.Future[Any]], seconds: float | None) -> None:
        """Until one of them is done, or it has been running for so long."""
        over = asyncio.get_running_loop().create_future()
        alarm = self.call_later(seconds, lambda: over.set_result(None))
        try:
            await asyncio.wait({*futures, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """As `asyncio.timeout`, of time that it has been running. Raises TimeoutError."""
        async with asyncio.timeout(None) as scope:
            now = asyncio.get_running_loop().time
            alarm = self.call_later(seconds, lambda: scope.reschedule(now()))
            try:
                yield
            finally:
                alarm.cancel()

    def _read(self) -> None:
        document = json.loads(self._path.read_bytes())
        self._pauses = [(float(a), float(b)) for a, b in document["pauses"]]
        stopped_at = document["stopped_at"]
        self._stopped_at = None if stopped_at is None else float(stopped_at)

    def _save(self) -> None:
        partial = self._path.with_suffix(".partial")
        document = {"pauses": self._pauses, "stopped_at": self._stopped_at}
        partial.write_text(json.dumps(document))
        partial.replace(self._path)


class Alarm:
    """What is to be done after a time that a clock measures."""

    def __init__(
        self, seconds: float | None, call: Callable[[], object], pending: set[Alarm]
    ) -> None:
        self._left = seconds or 0.0
        self._call = call
        self._pending = pending
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        self._timer = self._loop.call_later(self._left, self._fire)

    def hold(self) -> None:
        if self._timer:
            self._left = max(0.0, self._timer.when() - self._loop.time())
            self._timer.cancel()

    def cancel(self) -> None:
        self._pending.discard(self)
        if self._timer:
            self._timer.cancel()

    def _fire(self) -> None:
        self._pending.discard(self)
        self._call()
