"""Ending what a shell runs: interrupts first, then pass after pass until nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection, Sequence

from interpreter.box import Box

NUDGE = 0.025
SHARES = (0.05, 0.2, 0.75)
"""Of the grace: an interrupt is repeated, since a program that was just being started may have
missed it."""


class Sweep:
    """Of the tree below one shell; processes below `spared` are another command's."""

    def __init__(self, box: Box, pid: int, spared: Sequence[int] = ()) -> None:
        self._box = box
        self._pid = pid
        self._spared = spared

    async def interrupt(self, ended_within: Callable[[float], Awaitable[bool]]) -> bool:
        """Whether interrupts alone did it; the argument waits for a share of the grace.

        bash forgets an interrupt during which the program it waited for ended as if nothing were: a
        loop of short programs needs many. Between the passes over all, each goes to the shell and
        to what has not had one yet.
        """
        for share in SHARES:
            had = set(await self._interrupt([]))
            for _ in range(round(share / NUDGE)):
                if await ended_within(NUDGE):
                    return True
                had |= set(await self._interrupt(had - {self._pid}))
        return False

    async def _interrupt(self, but: Collection[int]) -> list[int]:
        roots, but = [self._pid], sorted(but)
        return await self._box.kill_tree(roots, signal.SIGINT, spare=self._spared, but=but)

    async def kill(self, *, shell_too: bool = False, passes: int = 10_000) -> bool:
        """SIGKILL until a pass finds nothing, also what left the tree; whether there was any."""
        roots, found_any = [self._pid], False
        but = [] if shell_too else roots
        for _ in range(passes):
            found = await self._box.kill_tree(roots, signal.SIGKILL, spare=self._spared, but=but)
            if not found:
                break
            found_any = True
            roots = list(dict.fromkeys([*roots, *found]))
        return found_any
