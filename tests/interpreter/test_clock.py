"""A clock that stands still, and what is to be done by it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from interpreter import clock as clocks
from interpreter.clock import Clock, boot_time


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock.json")


async def passed(call: asyncio.Future[None], least: float, begin: float) -> None:
    await asyncio.wait_for(call, 5)
    assert least <= time.monotonic() - begin < least + 0.5


async def test_an_alarm_stands_still(clock: Clock) -> None:
    begin, rang = time.monotonic(), asyncio.get_running_loop().create_future()
    clock.call_later(0.3, lambda: rang.set_result(None))
    for _ in range(3):
        await asyncio.sleep(0.05)
        clock.stop()
        await asyncio.sleep(0.2)
        clock.go()
    await passed(rang, 0.9, begin)


async def test_an_alarm_that_is_set_meanwhile(clock: Clock) -> None:
    clock.stop()
    begin, rang = time.monotonic(), asyncio.get_running_loop().create_future()
    clock.call_later(0.1, lambda: rang.set_result(None))
    await asyncio.sleep(0.3)
    assert not rang.done()
    clock.go()
    await passed(rang, 0.4, begin)


async def test_one_that_is_cancelled_or_never_comes(clock: Clock) -> None:
    rang: list[int] = []
    clock.call_later(0.01, lambda: rang.append(1)).cancel()
    clock.stop()
    clock.call_later(0.01, lambda: rang.append(2)).cancel()
    clock.call_later(None, lambda: rang.append(3))
    clock.go()
    await asyncio.sleep(0.1)
    assert rang == []


async def test_stopping_and_going_twice(clock: Clock) -> None:
    begin = boot_time()
    clock.go()
    clock.stop()
    clock.stop()
    await asyncio.sleep(0.2)
    clock.go()
    clock.go()
    assert clock.since(begin) < 0.15


async def test_a_timeout_and_a_wait(clock: Clock) -> None:
    begin, paused = time.monotonic(), 0.0

    async def pause() -> None:
        nonlocal paused
        clock.stop()
        stopped_at = time.monotonic()
        await asyncio.sleep(0.3)
        paused = time.monotonic() - stopped_at
        clock.go()

    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.2):
                tasks.create_task(pause())
                await asyncio.sleep(10)
    assert time.monotonic() - begin >= 0.2 + paused - 0.01


async def test_timeouts_and_waits_without_an_end(clock: Clock) -> None:
    async with clock.timeout(None):
        pass
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await clock.wait([never], 0.05)
    never.set_result(None)
    await clock.wait([never], None)


async def test_the_next_service_knows(clock: Clock, tmp_path: Path) -> None:
    begin = boot_time()
    clock.stop()
    await asyncio.sleep(0.2)
    clock.go()
    ran = clock.since(begin)
    clock.stop()
    await asyncio.sleep(0.2)
    after = Clock(tmp_path / "clock.json")
    assert ran <= after.since(begin) < ran + 0.1
    rang: list[int] = []
    after.call_later(0.01, lambda: rang.append(1))
    await asyncio.sleep(0.1)
    assert rang == []
    after.go()
    await asyncio.sleep(0.1)
    assert rang == [1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pauses": 1}', '{"pauses": [[1]]}', "\0", "7"])
async def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock.json").write_text(text)
    assert Clock(tmp_path / "clock.json").since(boot_time() - 1) == pytest.approx(1, abs=0.1)


async def test_many_pauses_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "KEPT", 3)
    begin = boot_time()
    for _ in range(20):
        clock.stop()
        await asyncio.sleep(0.02)
        clock.go()
    assert len(clock._pauses) == 3
    assert clock.since(begin) < 0.2 < boot_time() - begin


async def test_a_full_disk_keeps_nothing_from_going_on(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    clock = Clock(place / "clock.json")
    clock.stop()
    (place / "clock.json").unlink()
    place.rmdir()
    clock.go()
    begin = boot_time()
    await asyncio.sleep(0.05)
    assert clock.since(begin) >= 0.05
    with pytest.raises(OSError, match="No such file"):
        clock.stop()
