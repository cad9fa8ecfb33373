"""`python -m bench.bulk`: much at a time, and what others notice of it.

While a load runs in one sandbox, `1+1` runs in another, again and again. The clients of the load
are processes of their own.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.report import figures
from bench.service import Api, service

BUSY, QUIET = "/v1/sandboxes/busy", "/v1/sandboxes/quiet"
AT = f"{BUSY}/sessions/default"
FILE = f"{AT}/files/content?path=large"
LARGE = 100_000_000
FOLLOWERS = 50
EVENTS = 3000
TICKING = f"import time\nfor n in range({EVENTS}):\n    print(n, flush=True)\n    time.sleep(0.001)"


class Load(NamedTuple):
    name: str
    run: Callable[[int], None]
    times: int = 1

    def repeat(self, port: int) -> None:
        for _ in range(self.times):
            self.run(port)


class Row(NamedTuple):
    load: str
    seconds: float
    """Of one."""
    elsewhere: dict[str, float]
    """Milliseconds of `1+1` in the other sandbox."""
    peak_mb: float
    """Memory of the service at its highest, since it started."""


def prints(port: int) -> None:
    Api(port).stream(f"{AT}/code", {"code": "for n in range(100_000): print(n)"})


def lines(port: int) -> None:
    command = "yes | head -c 10000000"
    Api(port).stream(f"{AT}/exec", {"command": command, "max_output_bytes": 64 << 20})


def upload(port: int) -> None:
    Api(port).json("PUT", FILE, b"\0" * LARGE)


def download(port: int) -> None:
    if len(Api(port).call("GET", FILE)) != LARGE:
        raise RuntimeError("a part of the file is missing")


def result(port: int) -> None:
    fields = {"code": "'x' * 20_000_000", "max_output_bytes": 64 << 20}
    answer = Api(port).json("POST", f"{AT}/code", fields)
    if len(answer["text"]) < 20_000_000:
        raise RuntimeError("a part of the result is missing")


def followers(port: int) -> None:
    """A thousand events a second to fifty."""
    api = Api(port)
    id = api.json("POST", f"{AT}/code?detach=true", {"code": TICKING})["id"]

    def follow(_: int) -> None:
        Api(port).follow(f"{BUSY}/executions/{id}/events")

    with ThreadPoolExecutor(FOLLOWERS) as pool:
        list(pool.map(follow, range(FOLLOWERS)))


LOADS = [
    Load("nothing", lambda port: time.sleep(2)),
    Load("100,000 prints, streamed", prints, 3),
    Load("10 MB of one-character lines, streamed", lines, 10),
    Load("100 MB upload", upload, 5),
    Load("100 MB download", download, 10),
    Load("20 MB result", result, 2),
    Load(f"1,000 events a second to {FOLLOWERS} followers", followers),
]


def measure(api: Api, load: Load) -> Row:
    # Forked: neither threads nor connections are open here that it could disturb.
    client = multiprocessing.get_context("fork").Process(target=load.repeat, args=(api.port,))
    times = []
    client.start()
    began = time.perf_counter()
    while client.is_alive():
        start = time.perf_counter()
        answer = api.json("POST", f"{QUIET}/sessions/default/code", {"code": "1+1"})
        times.append(time.perf_counter() - start)
        if answer["text"] != "2":
            raise RuntimeError(f"the service answered {answer}")
    client.join()
    seconds = time.perf_counter() - began
    if client.exitcode:
        raise RuntimeError(f"{load.name} failed")
    return Row(load.name, seconds / load.times, figures(times), api.peak_mb())


def show(rows: list[Row]) -> None:
    table = Table("while this ran", "s", "1+1 median ms", "p95", "runs", "service peak MB")
    for row in rows:
        elsewhere = row.elsewhere
        told = (row.seconds, elsewhere["median"], elsewhere["p95"])
        rest = (str(elsewhere["runs"]), f"{row.peak_mb:.0f}")
        table.add_row(row.load, *(f"{value:.2f}" for value in told), *rest)
    Console(width=120).print(table)


def main() -> None:
    with service() as api:
        for sandbox in (BUSY, QUIET):
            api.json("PUT", sandbox, {})
            api.json("POST", f"{sandbox}/sessions/default/code", {"code": "1+1"})
        rows = [measure(api, load) for load in LOADS]
    show(rows)
    if sys.argv[1:]:
        found: list[dict[str, Any]] = [row._asdict() for row in rows]
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
