"""A paused sandbox and the services that come after: it is paused, and it can be ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from restarting import BASE, SANDBOX, Service, serving

pytestmark = pytest.mark.box

PLANTS = {
    "cgroup2": "",
    "cgroup1": "import interpreter.limits as l; real = l.hierarchies\n"
    "l.hierarchies = lambda: [each for each in real() if each.version == 1]\n",
    "signals": "import interpreter.limits as l; l.hierarchies = lambda: []\n",
}
WITHOUT = PLANTS["signals"]
DIE = "import os, signal; die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture(params=list(PLANTS))
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    """One that pauses in each way."""
    async with serving(tmp_path, PLANTS[request.param]) as service:
        health = (await service.client.get("/health")).json()
        if health["isolation"]["limits"]["pause"] != request.param:
            pytest.skip(f"the freezer of {request.param} is not installed for this service")
        yield service


async def status(service: Service) -> str:
    found: str = (await service.client.get(SANDBOX)).json()["status"]
    return found


async def spinner(service: Service) -> Path:
    """Start something that never rests; its directory in /proc."""
    word = f"spin-{os.urandom(6).hex()}"
    await service.exec(f"(exec -a {word} bash -c 'while :; do :; done') &")
    for _ in range(500):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if _line(path).startswith(word.encode()):
                return path.parent
        await asyncio.sleep(0.01)
    raise AssertionError("it did not start")


def _line(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


async def rests(process: Path) -> bool:
    before = _ticks(process)
    await asyncio.sleep(0.3)
    return _ticks(process) == before


def _ticks(process: Path) -> int:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_paused_sandbox_stays_paused(service: Service, number: int) -> None:
    await service.exec("f() { echo kept; }")
    await service.code("x = 6")
    process = await spinner(service)
    assert not await rests(process)
    assert (await service.post(f"{SANDBOX}/pause"))["status"] == "paused"
    await service.restart(number)
    assert await status(service) == "paused"
    assert await rests(process)
    result = await service.exec("f")
    assert (result["stdout"], result["notices"]) == ("kept\n", [])
    assert (await service.code("x * 7"))["text"] == "42"
    assert await status(service) == "running"
    assert not await rests(process)


STOPPED_AND = """
from interpreter.pausing import Pause
stop = Pause._stop
async def stop_and_die(self, seen):
    await stop(self, seen)
    die()
Pause._stop = stop_and_die
"""
PLACES = ["pausing.Pause.begin", "box.Box.find", "processes.Processes.restore"]


@pytest.mark.parametrize("where", PLACES)
async def test_a_service_that_is_killed_while_it_takes_it_up(service: Service, where: str) -> None:
    """It goes on for that moment; the one after has it paused nevertheless."""
    process = await spinner(service)
    await service.post(f"{SANDBOX}/pause")
    whole, (module, kind, method) = service.program, where.split(".")
    plant = f"from interpreter.{module} import {kind}; {kind}.{method} = die\n"
    service.program = DIE + plant + whole
    await service.stop()
    with pytest.raises(AssertionError):
        await service.start()
    assert await service.process.wait() == -signal.SIGKILL
    service.program = whole
    await service.start()
    assert await status(service) == "paused"
    assert await rests(process)


async def test_one_that_is_killed_while_it_pauses(service: Service) -> None:
    """Nobody was told, so it may be either; but it is what it says it is, and can be woken."""
    process = await spinner(service)
    whole = service.program
    service.program = DIE + STOPPED_AND + whole
    await service.restart()
    with suppress(Exception):
        await service.client.post(f"{SANDBOX}/pause")
    assert await service.process.wait() == -signal.SIGKILL
    service.program = whole
    await service.start()
    assert await rests(process) == (await status(service) == "paused")
    assert (await service.exec("echo on"))["stdout"] == "on\n"
    assert not await rests(process)


async def test_what_cannot_be_paused_again_keeps_no_service_from_starting(
    service: Service,
) -> None:
    process = await spinner(service)
    await service.post(f"{SANDBOX}/pause")
    whole = service.program
    service.program = "import interpreter.pausing as p; p.PASSES = 0\n" + whole
    await service.restart()
    service.program = whole
    assert await status(service) == "running"
    assert not await rests(process)


async def test_a_time_out_goes_on_where_it_stood(service: Service) -> None:
    body = {"command": "echo on; sleep 1000", "id": "long", "timeout": 2}
    await service.client.post(f"{BASE}/exec?detach=true", json=body)
    await service.events("long", until="stdout")
    await service.post(f"{SANDBOX}/pause")
    await service.stop()
    await asyncio.sleep(2.5)
    await service.start()
    assert (await service.execution("long"))["state"] == "running"
    await service.post(f"{SANDBOX}/resume")
    woken = time.monotonic()
    events = await service.events("long")
    assert events[-1]["data"]["timed_out"] is True
    assert 1 < time.monotonic() - woken < 6


async def test_a_frozen_one_that_nobody_knows_is_swept(tmp_path: Path, service: Service) -> None:
    address = "/v1/sandboxes/doomed"
    await service.client.put(address)
    word = f"doomed-{os.urandom(6).hex()}"
    command = f"exec -a {word} sleep 4321"
    await service.post(f"{address}/sessions/default/processes", command=command)
    await service.post(f"{address}/pause")
    await service.stop()
    with closing(sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)) as base:
        base.execute("DELETE FROM sandboxes WHERE id = 'doomed'")
    begin = time.monotonic()
    await service.start()
    assert time.monotonic() - begin < 8
    lines = [_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if word.encode() in line]


async def test_the_next_service_may_have_no_control_groups(service: Service) -> None:
    process = await spinner(service)
    await service.post(f"{SANDBOX}/pause")
    whole = service.program
    service.program = WITHOUT + whole
    await service.restart()
    service.program = whole
    assert await status(service) == "paused"
    assert await rests(process)
    assert (await service.exec("echo on"))["stdout"] == "on\n"
    assert not await rests(process)
