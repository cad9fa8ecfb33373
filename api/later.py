"""Modules that the first request which needs them imports."""

from __future__ import annotations

import asyncio
import importlib


async def prepared(*names: str) -> None:
    """Import modules beside the loop: the statement that follows takes no time then."""
    for name in names:
        await asyncio.to_thread(importlib.import_module, name)
