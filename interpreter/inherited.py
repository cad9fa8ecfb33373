"""A kernel that an earlier service left, until it has answered this one.

It may be stopped, or hold its interpreter's lock for as long as a cell likes: then nobody waits for
it but who wants it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

from interpreter.box_process import BoxProcess
from interpreter.clock import Clock
from kernels.errors import KernelFailed
from kernels.kernel import Kernel
from kernels.outcome import Death

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 60.0
"""Seconds of the box's clock for which whoever wants it waits."""


class Inherited:
    """Is asked for an answer as soon as it is made, which takes a running loop."""

    def __init__(
        self, kernel: Kernel, process: BoxProcess, after: int, *, resumes: bool = False
    ) -> None:
        """The output up to number `after` was recorded.

        `resumes`: it was running a cell, which is to be expected again before the output that
        came since is handed on, by whoever calls `catch_up`.
        """
        self._kernel = kernel
        self._process = process
        self._after = after
        self._resumes = resumes
        self.heard = asyncio.create_task(self._hear(), name=f"kernel {process.pid} taken up")
        """Done when it has answered, or has ended."""

    @property
    def death(self) -> Death:
        ended = self._process.ended
        return Death.of(ended.result() if ended.done() else -signal.SIGKILL)

    async def wait(self, clock: Clock, *stops: asyncio.Future[Any]) -> None:
        """Until it is heard of, or one of `stops` is done. Raises KernelFailed when it is silent
        for too long; it is left as it is."""
        await clock.wait({self.heard, *stops}, ANSWER_TIMEOUT)
        if not self.heard.done() and not any(stop.done() for stop in stops):
            raise KernelFailed(
                "expected the kernel to answer after the service was restarted, and it does not: "
                "something holds it. Ask again later, or restart the context"
            )

    async def catch_up(self) -> bool:
        """Take in what it has said since; whether that was all of it. Raises KernelFailed."""
        return await self._kernel.catch_up(self._after)

    async def leave(self) -> None:
        """Ask no more."""
        self.heard.cancel()
        await asyncio.wait({self.heard})

    async def _hear(self) -> None:
        try:
            await self._kernel.attach(self._process, timeout=None)
            if not self._resumes:
                await self.catch_up()
        except (KernelFailed, OSError) as error:
            log.warning("a kernel could not be taken up: %s", error)
            await self._process.discard()
