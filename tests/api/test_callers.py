from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.callers import CallerGone, unless_gone


class Connection:
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_a_caller_who_stays_gets_the_result() -> None:
    async def work() -> int:
        return 7

    assert await unless_gone(Connection().receive, work()) == 7


async def test_errors_come_through() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await unless_gone(Connection().receive, work())


async def test_the_work_of_a_caller_who_goes_away_is_cancelled() -> None:
    connection, started, ended = Connection(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(unless_gone(connection.receive, work()))
    await started.wait()
    connection.gone.set()
    with pytest.raises(CallerGone):
        await waiting
    assert ended.is_set()


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(unless_gone(Connection().receive, work()))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before
