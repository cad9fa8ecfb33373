"""Everything again and again, for as long as `CELLSHELL_SOAK_MINUTES` says: nothing may grow."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from restarting import Service, serving

pytestmark = [pytest.mark.box, pytest.mark.timeout(36_000)]
MEMORY_MAY_GROW = 24 << 20
AT_ONCE = 4
MUCH = 4_000_000


class Held(NamedTuple):
    """What the service holds when nothing is going on."""

    memory: int
    descriptors: int
    threads: int
    processes: int
    boxes: int
    directories: int


async def one_of_everything(service: Service, number: int, choose: random.Random) -> None:
    address = f"/v1/sandboxes/soak-{number}"
    session = f"{address}/sessions/default"
    client = service.client
    await client.put(address)
    await service.post(f"{session}/exec", command=f"seq {choose.randint(1, 50_000)}; (exit 3)")
    await service.post(f"{session}/exec", command="sleep 60", timeout=0.1)
    await service.post(f"{session}/code", code="import os; print('x' * 100_000); os.getpid()")
    await service.post(f"{session}/code", code="import os; os._exit(1)")
    await client.put(f"{session}/files/content?path=/workspace/f", content=bytes(500_000))
    await client.get(f"{session}/files/content?path=/workspace/f")
    await client.get(f"{session}/files/archive?path=/workspace")
    await service.post(f"{session}/processes", command="echo hi; sleep 60", id="p")
    await service.post(f"{address}/processes/p/wait", **{"for": "log", "pattern": "hi"})
    await service.post(f"{address}/pause")
    other = await service.post(f"{address}/sessions")
    await service.post(f"{address}/sessions/{other['id']}/exec", command="true")
    yes, events = {"command": "yes"}, {"Accept": "text/event-stream"}
    async with client.stream("POST", f"{session}/exec", json=yes, headers=events) as stream:
        async for _ in stream.aiter_bytes():
            break
    await client.delete(f"{address}/sessions/{other['id']}")
    assert (await client.delete(address)).status_code == 204


async def much_in_one_that_stays(service: Service) -> None:
    """Its executions are listed for long, and what they put out is on disk."""
    whole = {"max_output_bytes": 8 * MUCH}
    assert len((await service.exec(f"yes | head -c {MUCH}", **whole))["stdout"]) == MUCH
    assert len((await service.code(f"'x' * {MUCH}", **whole))["text"]) > MUCH


async def held(service: Service, home: Path) -> Held:
    pid = service.process.pid
    await asyncio.sleep(1.0)  # connections that were dropped are noticed
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = dict(re.findall(r"^(VmRSS|Threads):\s*(\d+)", status, re.MULTILINE))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    listed = (await service.client.get("/v1/sandboxes")).json()
    return Held(
        int(numbers["VmRSS"]) * 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(numbers["Threads"]),
        len(children),
        len(listed),
        len(os.listdir(home / "sandboxes")),
    )


async def rounds(service: Service, first: int, count: int, choose: random.Random) -> int:
    for number in range(first, first + count, AT_ONCE):
        together = range(number, number + AT_ONCE)
        await asyncio.gather(*(one_of_everything(service, n, choose) for n in together))
        await much_in_one_that_stays(service)
    return first + count


def compare(first: Held, last: Held) -> None:
    assert last.memory - first.memory < MEMORY_MAY_GROW
    assert last.descriptors <= first.descriptors + 2
    assert last.threads <= first.threads + 4
    assert last[3:] == first[3:]


async def test_a_few_rounds(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        number = await rounds(service, 0, 8, random.Random(1))
        first = await held(service, tmp_path)
        await rounds(service, number, 24, random.Random(2))
        compare(first, await held(service, tmp_path))


@pytest.mark.stress
async def test_nothing_grows(tmp_path: Path) -> None:
    minutes = float(os.environ.get("CELLSHELL_SOAK_MINUTES", "1"))
    choose = random.Random(int(os.environ.get("CELLSHELL_SEED", "0")))
    async with serving(tmp_path) as service:
        begin, number, first = time.monotonic(), 0, None
        while time.monotonic() - begin < minutes * 60 or first is None:
            number = await rounds(service, number, AT_ONCE, choose)
            if first is None and time.monotonic() - begin > min(60, minutes * 20):
                first = await held(service, tmp_path)  # what is made once has been made
        last = await held(service, tmp_path)
        print(f"{number} sandboxes: {first} -> {last}")  # noqa: T201
        compare(first, last)
