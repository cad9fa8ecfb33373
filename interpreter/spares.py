"""Python kernels that are ready before anybody asks for one.

A spare is forked into a box and waits there under nobody's name, with nothing of a session in it.
There is one in each of the boxes that were made, or had a kernel started, last.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpec

from interpreter.box import Box
from interpreter.places import BoxPlace
from kernels.errors import CellshellError
from kernels.kernel import Kernel

log = logging.getLogger(__name__)

LEAST_AVAILABLE = 0.1
"""Share of the machine's memory below which no spare is kept."""
LULL = 0.1
"""Seconds after a kernel was asked for, in which none is made: its first cell comes first."""
NAME = "spare"
WARMING = "get_ipython().display_formatter.format(1) and None"
"""Run once, so that the memory which the first cell and its result touch is the kernel's own by
then: a first `1+1` takes 5 ms instead of 6. Its variables are asked for since it will be told whose
it is by the same thread, which takes 2 ms the first time."""


@dataclass(frozen=True)
class Spare:
    kernel: Kernel
    place: BoxPlace

    async def start(self, box: Box) -> None:
        """Nothing is left of it when this fails."""
        try:
            await self.kernel.start(env=_environment(box), cwd=box.paths.workspace)
            await self.kernel.execute(WARMING, silent=True)
            await self.kernel.variables()
        except BaseException:
            await self.discard()
            raise

    async def discard(self) -> None:
        await self.place.end()
        await self.kernel.shutdown(now=True)
        await self.place.close()


class Spares:
    """`most` in all; none where a box is limited, whose limits they would use up."""

    def __init__(self, most: int, zmq_context: zmq.Context[Any]) -> None:
        self._most = most
        self._zmq = zmq_context
        self._ready: OrderedDict[Box, Spare] = OrderedDict()
        self._due: dict[Box, asyncio.TimerHandle] = {}
        self._making: dict[Box, asyncio.Task[None]] = {}
        self.hits = self.misses = 0

    @property
    def waiting(self) -> int:
        return len(self._ready)

    @property
    def settled(self) -> bool:
        """Whether none is being made, or to be made."""
        return not self._making and not self._due

    async def take(self, box: Box) -> Spare | None:
        """The box's own, for whoever asked: nobody else gets it.

        One that is being made is waited for: it is there before one that is started now.
        """
        if (making := self._making.get(box)) is not None:
            await asyncio.wait({making})
        spare = self._ready.pop(box, None)
        if spare is not None and not spare.kernel.running:
            await spare.discard()
            spare = None
        self.hits += spare is not None
        self.misses += spare is None
        return spare

    def refill(self, box: Box, spec: KernelSpec) -> None:
        """Have one made, in the background and soon, unless the box has one."""
        if not self._most or box.limited or box in self._ready or box in self._making:
            return
        self._cancel(box)
        loop = asyncio.get_running_loop()
        self._due[box] = loop.call_later(LULL, self._begin, box, spec)

    def _cancel(self, box: Box) -> None:
        if (due := self._due.pop(box, None)) is not None:
            due.cancel()

    def _begin(self, box: Box, spec: KernelSpec) -> None:
        del self._due[box]
        task = self._making[box] = asyncio.create_task(self._make(box, spec), name="spare kernel")
        task.add_done_callback(lambda _: self._making.pop(box, None))

    async def forget(self, box: Box) -> None:
        """The box ends, or is left: its spare ends."""
        self._cancel(box)
        if (making := self._making.get(box)) is not None:
            making.cancel()
            await asyncio.wait({making})
        if (spare := self._ready.pop(box, None)) is not None:
            await spare.discard()

    async def _make(self, box: Box, spec: KernelSpec) -> None:
        if box.forks is None or not await box.forks.started():
            return
        if memory_available() < LEAST_AVAILABLE:
            return await self._shrink(0)
        place = BoxPlace(box, NAME, forked=True, started=False)
        spare = Spare(Kernel(spec, place, self._zmq), place)
        try:
            await spare.start(box)
        except (CellshellError, OSError) as error:
            log.info("no spare kernel: %s", error)
            return None
        self._ready[box] = spare
        await self._shrink(self._most)

    async def _shrink(self, most: int) -> None:
        while len(self._ready) > most:
            _, oldest = self._ready.popitem(last=False)
            await oldest.discard()


def _environment(box: Box) -> Mapping[str, str]:
    """No more than what decides how a process starts: the rest is told with its session."""
    return {"HOME": box.paths.home, "LANG": "C.UTF-8"}


def memory_available() -> float:
    """Share of the machine's memory that is to be had without swapping."""
    words = Path("/proc/meminfo").read_text().split()
    total, available = (
        int(words[words.index(f"Mem{name}:") + 1]) for name in ("Total", "Available")
    )
    return available / total
