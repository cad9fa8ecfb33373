"""Bringing a cell to its end: interrupts, then harder, with all that it started."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any, Literal

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.family import children, inside_pid, main_children, started, ticks
from kernels.errors import KernelFailed
from kernels.kernel import Kernel

Early = Literal["timeout", "stopped"]
SHARES = (0.25, 0.35, 0.4)
"""Of the grace: an interrupt is repeated, since a cell that is just being started may miss it."""


class CellEnd:
    """Knows what was there before the cell: that lives on."""

    def __init__(
        self, box: Box, process: BoxProcess, kernel: Kernel, *, since: int | None = None
    ) -> None:
        """`since` is when the cell began, in clock ticks since boot; by default now."""
        self._box = box
        self.clock = box.clock
        self._process = process
        self._kernel = kernel
        self._since = ticks() if since is None else since
        self._before = main_children(process.host_pid) if since is None else []

    async def watch(
        self,
        running: asyncio.Future[Any],
        stop: asyncio.Future[None],
        *,
        timeout: float | None,
        grace: float,
    ) -> tuple[Early | None, bool]:
        """Wait for the end; on a timeout or a stop, bring it about. Whether it took a kill."""
        waited: set[asyncio.Future[Any]] = {running, stop}
        await self.clock.wait(waited, timeout)
        if running.done():
            return None, False
        early: Early = "stopped" if stop.done() else "timeout"
        await self._interrupt(running, grace)
        harder = not running.done()
        await self._sweep(kernel_too=harder)
        await asyncio.wait({running})
        return early, harder

    async def _interrupt(self, running: asyncio.Future[Any], grace: float) -> None:
        for share in SHARES:
            with suppress(KernelFailed):
                await self._kernel.interrupt()
            await asyncio.wait({running}, timeout=grace * share)
            if running.done():
                return

    async def _sweep(self, *, kernel_too: bool) -> None:
        """End what the cell started, wherever it went; what earlier cells started lives."""
        pid = self._process.pid
        roots, but = [pid], [] if kernel_too else [pid]
        spared = [inside_pid(each) for each in self._spared()]
        with suppress(ConnectionError):
            while found := await self._box.kill_tree(roots, signal.SIGKILL, spare=spared, but=but):
                roots = list(dict.fromkeys([*roots, *found]))

    def _spared(self) -> list[int]:
        return [
            pid
            for pid in children(self._process.host_pid)
            if pid in self._before or started(pid) < self._since
        ]
