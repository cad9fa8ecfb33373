"""Ending a process and all its descendants."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from interpreter.box import Box

PASSES = 50
"""How often what keeps forking is looked for again before it is killed as far as it is known."""

PATIENCE = 1.0
"""How long a process that was killed may take to end."""


async def end_tree(
    box: Box,
    pid: int,
    over: Callable[[], Awaitable[None]],
    *,
    first: int = signal.SIGTERM,
    grace: float,
) -> None:
    """`first`, up to `grace` seconds, then SIGKILL until nothing is left.

    `over` waits until the process has ended and its output is closed: only then it is looked
    whether anything lives on without it, and that has the rest of the time.
    """
    deadline = asyncio.get_running_loop().time() + grace
    found = [pid, *await box.kill_tree([pid], first)]
    await box.kill_tree(found, signal.SIGCONT)
    try:
        async with asyncio.timeout_at(deadline):
            await over()
            if await box.kill_tree(found, 0):
                await asyncio.shield(box.ended)
    except TimeoutError:
        await kill_all(box, found)


async def kill_all(
    box: Box, roots: Iterable[int], ended: asyncio.Future[int] | None = None
) -> None:
    """SIGKILL these and their descendants; `ended` is done at the end of the largest of them.

    They are stopped first: what is stopped cannot fork while the others are being found.
    """
    known, stopped = set(roots), set[int]()
    for _ in range(PASSES):
        found = set(await box.kill_tree(sorted(known), signal.SIGSTOP))
        if found <= stopped:
            break
        stopped |= found
        known |= found
    for _ in range(PASSES):
        if not await box.kill_tree(sorted(known), signal.SIGKILL):
            return
        if ended is not None:
            await asyncio.wait({ended}, timeout=PATIENCE)
            ended = None  # what cannot die now will not for being waited for again
