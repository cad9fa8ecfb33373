"""`python -m bench.scale [CONTEXTS]`: what many idle contexts cost, and whether all still answer.

Fifty contexts to a sandbox, each with pandas and pyplot in use. Memory is the proportional share
(PSS) of every process below the service; processor time is taken while nobody asks for anything.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.report import figures
from bench.service import Api, service
from interpreter.guest.family import descendants

PER_SANDBOX = 50
AT_ONCE = 4
IDLE_SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")
LOADED = "import numpy, pandas, matplotlib.pyplot as plt\nlen(pandas.DataFrame({'a': [1]}))"


class Cost(NamedTuple):
    """Of the service and all below it."""

    memory_mb: float
    processes: int
    service_descriptors: int
    service_mb: float
    cpu_seconds: float

    @classmethod
    def now(cls, service: int) -> Cost:
        pids = [service, *descendants([service], set(), {service})]
        return cls(
            sum(map(_pss_mb, pids)),
            len(pids),
            len(os.listdir(f"/proc/{service}/fd")),
            _pss_mb(service),
            sum(map(_cpu, pids)),
        )


def measure(api: Api, contexts: int) -> None:
    before = Cost.now(api.pid)
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        times = list(pool.map(lambda number: _create(api.port, number), range(contexts)))
    seconds = time.perf_counter() - began
    after = Cost.now(api.pid)
    time.sleep(IDLE_SECONDS)
    idle = Cost.now(api.pid).cpu_seconds - after.cpu_seconds
    again = [_timed(api, number) for number in range(contexts)]
    made, answered = figures(times), figures(again)
    for what, value in (
        ("contexts", contexts),
        ("made a second, four at a time", contexts / seconds),
        ("ms to make one and use pandas in it, median", made["median"]),
        ("the same, p95", made["p95"]),
        (
            "MB of each and its share of its sandbox",
            (after.memory_mb - before.memory_mb) / contexts,
        ),
        ("MB of the service for each", (after.service_mb - before.service_mb) / contexts),
        (
            "descriptors of the service for each",
            (after.service_descriptors - before.service_descriptors) / contexts,
        ),
        ("per mille of a processor for each, idle", idle / IDLE_SECONDS / contexts * 1000),
        ("ms of 1+1 in each in turn, median", answered["median"]),
        ("the same, p95", answered["p95"]),
    ):
        print(f"{what:45} {value:10.2f}")


def _create(port: int, number: int) -> float:
    api = Api(port)
    sandbox, context = _where(number)
    start = time.perf_counter()
    api.json("PUT", sandbox, {})
    api.json("POST", f"{sandbox}/sessions/default/contexts", {"id": context})
    _run(api, number, LOADED, "1")
    api.disconnect()
    return time.perf_counter() - start


def _timed(api: Api, number: int) -> float:
    start = time.perf_counter()
    _run(api, number, "1+1", "2")
    return time.perf_counter() - start


def _run(api: Api, number: int, code: str, text: str) -> None:
    sandbox, context = _where(number)
    body = {"code": code, "context": context}
    answer = api.json("POST", f"{sandbox}/sessions/default/code", body)
    if answer["text"] != text:
        raise RuntimeError(f"context {number} answered {answer}")


def _where(number: int) -> tuple[str, str]:
    sandbox, context = divmod(number, PER_SANDBOX)
    return f"/v1/sandboxes/scale-{sandbox}", f"c{context}"


def _pss_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0


def _cpu(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


if __name__ == "__main__":
    with service() as running:
        measure(running, int(sys.argv[1]) if sys.argv[1:] else 100)
