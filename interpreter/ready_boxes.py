"""Boxes that are ready before anybody asks for a sandbox.

What tells one sandbox from another is known to the service alone, but for its limits and its way
out: so a box with the usual limits and no way out can be made for nobody, and be whoever's is asked
for next. It has a number of its own, and files that move to where its sandbox has them. A service
that is killed leaves it to the sweep of the next one, which knows no sandbox of that number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from interpreter.box import Box
from interpreter.errors import CellshellError
from interpreter.models import CreateSandbox
from interpreter.premises import Premises
from interpreter.removal import remove_tree
from interpreter.resources import Resources
from interpreter.spares import LEAST_AVAILABLE, memory_available

log = logging.getLogger(__name__)

LULL = 0.3
"""So many seconds after the last sandbox was asked for, the next box is made."""


@dataclass
class ReadyBox:
    premises: Premises
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What ends with the box."""
    box: Box | None = None

    async def start(self) -> None:
        self.box = await self.premises.build(self.stack)

    async def discard(self) -> None:
        """Nothing is left of it."""
        await self.stack.aclose()
        if self.box is not None:
            await self.box.destroy()
        await self.premises.demolish()
        for directory in (self.premises.directory, self.premises.plan.run):
            await asyncio.to_thread(remove_tree, directory)


class ReadyBoxes:
    """`most` of them."""

    def __init__(self, most: int, request: CreateSandbox, resources: Resources) -> None:
        """`request` is what they are made for: one that asks for nothing."""
        self._most = most if _movable(request, resources) else 0
        self._request = request
        self._resources = resources
        self._ready: deque[ReadyBox] = deque()
        self._making: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._discarding: set[asyncio.Task[None]] = set()
        self._closed = self._failed = False
        self.hits = self.misses = 0

    @property
    def waiting(self) -> int:
        return len(self._ready)

    def take(self, request: CreateSandbox) -> ReadyBox | None:
        """One that has what is asked for, for whoever asked: nobody else gets it."""
        usual = self._request
        if not self._most or (request.limits, request.network) != (usual.limits, usual.network):
            return None
        found = None
        while self._ready and found is None:
            found = self._ready.popleft()
            if found.box is None or found.box.ended.done():
                self._discard(found)
                found = None
        self.hits += found is not None
        self.misses += found is None
        self.refill()
        return found

    def refill(self) -> None:
        """In the background, one box at a time, once nobody has asked for a while."""
        if self._timer is not None:
            self._timer.cancel()
        if len(self._ready) < self._most and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(LULL, self._begin)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait({self._making})
        await self._drain()

    def _discard(self, ready: ReadyBox) -> None:
        task = asyncio.create_task(ready.discard(), name="ready box")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def _drain(self) -> None:
        while self._ready:
            self._discard(self._ready.popleft())
        if self._discarding:
            await asyncio.wait(self._discarding)

    def _begin(self) -> None:
        if self._making is None:
            self._making = asyncio.create_task(self._add(), name="ready box")

    async def _add(self) -> None:
        try:
            if memory_available() < LEAST_AVAILABLE:
                await self._drain()
                return
            self._ready.append(await self._make())
            self._failed = False
        except (CellshellError, OSError) as error:
            if not self._failed:  # tried again with the next sandbox, and told once
                log.warning("no box is made ahead: %s", error)
            self._failed = True
        else:
            self.refill()
        finally:
            self._making = None

    async def _make(self) -> ReadyBox:
        number = self._resources.registry.reserve()
        ready = ReadyBox(
            Premises(self._place(number), number, request=self._request, resources=self._resources)
        )
        try:
            await ready.start()
        except BaseException:
            with suppress(CellshellError, OSError):
                await asyncio.shield(ready.discard())
            raise
        return ready

    def _place(self, number: int) -> Path:
        """Among the sandboxes', by a name that no sandbox can have: there it is swept."""
        return self._resources.settings.home / "sandboxes" / f".{number}"


def _movable(request: CreateSandbox, resources: Resources) -> bool:
    """Whether a box sees its files by paths of its own, and they are on no disk of their own."""
    walled = resources.isolation.tier == "bwrap"
    return walled and request.network == "none" and request.limits.disk_bytes is None
