"""What control groups do to processes, in each version: version 2 also where `tests/uml` boots."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interpreter.cgroup import Group
from interpreter.cgroups import Cgroups, hierarchies
from interpreter.family import Seen, look
from interpreter.launching import JOIN
from interpreter.limit_models import Limits
from interpreter.pausing import freeze

MIB = 1 << 20
Make = Callable[[Limits], Group]
SPIN = "print('on', flush=True)\nwhile True: pass"
FORK = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(100)
        count += 1
except BlockingIOError:
    print(count, flush=True)
time.sleep(100)
"""
BOMB = "import os\nprint('on', flush=True)\nwhile True:\n  try: os.fork()\n  except OSError: pass"
BURN = """
import time
begin = time.monotonic()
while time.process_time() < 0.5: pass
print(time.monotonic() - begin)
"""


@pytest.fixture(params=[1, 2])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes a group with limits; nothing is left of it."""
    version: int = request.param
    found = [each for each in hierarchies() if each.version == version]
    name = f"cellshell-effects-{os.getpid()}"
    groups = Cgroups.claim(name, tmp_path / "cgroups.json", found)
    group = groups.group("box")

    def create(limits: Limits) -> Group:
        group.create(limits)
        return group

    try:
        for controller in ("memory", "pids", "cpu", "freezer"):
            if groups.version(controller) != version:
                why = groups.lacking[controller]
                pytest.skip(
                    f"control group {controller}, version {version}, is not installed: {why}"
                )
        yield create
    finally:
        await group.remove()
        groups.close()
    assert not group.exists


@asynccontextmanager
async def inside(group: Group, program: str) -> AsyncIterator[Process]:
    words = [*group.joins, "--", sys.executable, "-I", "-c", program]
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", JOIN, "join", *words), stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: Process) -> str:
    assert process.stdout
    return (await process.stdout.readline()).decode()


def seen(process: Process) -> Callable[[], list[Seen]]:
    return lambda: [found for found in [look(process.pid)] if found]


async def rests(process: Process) -> bool:
    def used() -> str:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[11]

    before = used()
    await asyncio.sleep(0.3)
    return used() == before


async def test_who_takes_too_much_memory_is_killed(make: Make) -> None:
    group = make(Limits(memory_bytes=64 * MIB))
    async with inside(group, "bytearray(200 << 20)") as process:
        assert await process.wait() == -9
    assert group.counters().kills == 1
    peak = group.peak()
    assert peak is not None and 60 * MIB < peak <= 64 * MIB
    async with inside(group, "print(len(bytearray(1 << 20)))") as process:
        assert await first_line(process) == f"{MIB}\n"


async def test_no_more_processes_than_allowed(make: Make) -> None:
    group = make(Limits(pids=8))
    async with inside(group, FORK) as process:
        assert 6 <= int(await first_line(process)) <= 9  # without what would hold a box up
        assert group.counters().refusals >= 1
        assert group.reading().pids == 8
        assert len(group.processes()) == 10
        await group.remove()
        assert await process.wait() == -9
    assert group.processes() == set()


async def test_no_more_of_a_processor_than_allowed(make: Make) -> None:
    group = make(Limits(cpus=0.25))
    async with inside(group, BURN) as process:
        assert float(await first_line(process)) > 1.2
    spent = group.reading().cpu_seconds
    assert spent is not None and spent > 0.4


async def test_what_is_frozen_stands_still_and_goes_on(make: Make) -> None:
    group = make(Limits())
    assert group.freezer
    async with inside(group, SPIN) as process:
        await first_line(process)
        for _ in range(2):
            await freeze(group.freezer, seen(process))
            assert await rests(process)
            assert process.pid in group.processes()
            group.freezer.thaw()
            assert not await rests(process)


async def test_what_is_frozen_is_ended(make: Make) -> None:
    group = make(Limits())
    assert group.freezer
    async with inside(group, SPIN) as process:
        await first_line(process)
        await freeze(group.freezer, seen(process))
        begin = time.monotonic()
        await group.remove()
        assert await process.wait() == -9
        assert time.monotonic() - begin < 5
    assert not group.exists


async def test_a_fork_bomb_is_ended(make: Make) -> None:
    group = make(Limits(pids=200))
    async with inside(group, BOMB) as process:
        await first_line(process)
        await asyncio.sleep(0.5)
        await group.remove()
        assert await process.wait() == -9
    assert not group.exists
