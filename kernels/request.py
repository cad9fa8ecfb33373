"""A request to a kernel on its way: done when its reply and its last output are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kernels.messages import Message

IDLE_GRACE = 1.0
"""How long the last output may take after the reply, and the reply after the last output."""

STRAY_IDLE = 0.1
"""An idle that came so long before the reply was made up by user code: the real one follows."""


class Request:
    """`done` completes with the reply; with None when there will be none."""

    def __init__(
        self,
        id: str,
        channel: str,
        on_message: Callable[[Message], None] | None,
        on_late: Callable[[Message], None] | None,
        wait_idle: bool,
        grace: float = IDLE_GRACE,
        shown: bool = False,
    ) -> None:
        """`shown`: what it brings about is for everybody who watches the kernel."""
        self.id = id
        self.channel = channel
        self.on_message = on_message
        self.on_late = on_late
        self.shown = shown
        self.idle = False
        self.on_stray_idle: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Message | None] = self._loop.create_future()
        self._idle_at = 0.0
        self._wait_idle = wait_idle
        self._patience = grace
        self._reply: Message | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> Message | None:
        """The reply. A caller that is cancelled leaves the request on its way."""
        return await asyncio.shield(self.done)

    def abandon(self) -> None:
        """Nobody waits any more: output from here on is late."""
        self.on_message = self.on_late

    def let_go(self) -> None:
        """It has ended: whoever took its output is not kept by what still refers to it."""
        self.on_message, self.on_stray_idle = self.on_late, None

    def reply_came(self, reply: Message) -> None:
        if self._reply is not None:
            return
        self._reply = reply
        if self._loop.time() - self._idle_at > STRAY_IDLE:
            self.idle = False
        if self.idle or not self._wait_idle:
            self._complete()
        else:
            self._start_grace(self._complete)

    def idle_came(self) -> None:
        self.idle = True
        self._idle_at = self._loop.time()
        if self._reply is not None:
            self._complete()
        elif self._timer is None and self.on_stray_idle is not None:
            self._start_grace(self.on_stray_idle)

    def lose(self) -> None:
        """No more will come than came."""
        self._complete()

    def lose_after(self, seconds: float) -> None:
        """Unless it comes meanwhile."""
        if not self.done.done():
            self._start_grace(self._complete, seconds)

    def _start_grace(self, then: Callable[[], None], seconds: float | None = None) -> None:
        self._stop_grace()
        patience = self._patience if seconds is None else seconds
        self._timer = self._loop.call_later(patience, then)

    def _stop_grace(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _complete(self) -> None:
        self._stop_grace()
        if not self.done.done():
            self.done.set_result(self._reply)
