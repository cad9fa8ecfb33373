"""Several things at once, of which the first to be over ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def race(*works: Awaitable[object]) -> list[object]:
    """What each came to: its result, its exception, or CancelledError where it was not the first.

    A caller that is cancelled ends them all.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return outcomes
