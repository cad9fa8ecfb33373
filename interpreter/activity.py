"""When something was last going on in a sandbox, and what is to happen once nothing is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from interpreter.events import now
from kernels.errors import CellshellError

log = logging.getLogger(__name__)


class Activity:
    """`on_idle` is called when for `timeout` seconds nothing was going on; None: never.

    One timer, which is armed again when it fires too early: what goes on costs nothing.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        since: str,
        is_busy: Callable[[], bool],
        on_idle: Callable[[], Awaitable[None]],
    ) -> None:
        """`is_busy` tells of what goes on without anybody having said so here."""
        self.last = since
        """When, as RFC 3339."""
        self._timeout = timeout
        self._is_busy = is_busy
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()
        self._going_on = 0
        self._timer: asyncio.TimerHandle | None = None
        self._acting: asyncio.Task[None] | None = None
        self._closed = False

    def touch(self) -> None:
        """Something happens now."""
        self.last = now()
        self._at = self._loop.time()
        if self._timeout is not None and self._timer is None and not self._closed:
            self._arm(self._timeout)

    @contextmanager
    def during(self) -> Iterator[None]:
        """Something goes on until the end of the block."""
        self._going_on += 1
        self.touch()
        try:
            yield
        finally:
            self._going_on -= 1
            self.touch()

    def close(self) -> None:
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._acting:
            self._acting.cancel()

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        assert self._timeout is not None
        self._timer = None
        if self._going_on or self._is_busy():
            self._at = self._loop.time()
        left = self._at + self._timeout - self._loop.time()
        if left > 0:
            self._arm(left)
        else:
            self._acting = self._loop.create_task(self._act())

    async def _act(self) -> None:
        try:
            await self._on_idle()
        except CellshellError as error:  # it is being deleted, or its box does not start
            log.warning("an idle sandbox stays as it is: %s", error.message)
        finally:
            self._acting = None
