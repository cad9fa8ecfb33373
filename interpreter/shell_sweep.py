"""Ending what a shell runs: interrupts first, then pass after pass until nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence

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

    async def interrupt(
        self, ended_within: Callable[[float], Awaitable[bool]], nudge: Callable[[], None]
    ) -> bool:
        """Whether interrupts alone did it; the first argument waits for a share of the grace.

        `nudge` interrupts the shell alone. bash forgets an interrupt during which the program it
        waited for ended as if nothing were; a loop of short programs needs many.
        """
        for share in SHARES:
            await self._box.kill_tree([self._pid], signal.SIGINT, spare=self._spared)
            for _ in range(round(share / NUDGE)):
                if await ended_within(NUDGE):
                    return True
                nudge()
        return False

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
