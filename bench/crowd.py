"""Many sandboxes at once: lost by a service that is killed, taken up by the next one, deleted."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bench.service import Api, start
from interpreter.guest.family import descendants
from interpreter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 50
AT_ONCE = 5
"""Connections of the client, each with its share of the sandboxes."""
IDS = [f"crowd-{number}" for number in range(SIZE)]


class Crowd:
    """A service of its own with fifty sandboxes; each has a shell, every second one a kernel."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="bench-")
        self._empty_home = tempfile.TemporaryDirectory(prefix="bench-")
        self._runtime = Settings(home=Path(self._home.name)).runtime
        self._came: set[int] = set()
        """Processes that came with the sandboxes."""
        self._start()

    def fill(self) -> None:
        """Every sandbox is there, and has something to lose."""
        before = _family(self._process.pid)
        self._all(_fill)
        self._came = _family(self._process.pid) - before

    def fill_and_kill(self) -> None:
        self.fill()
        self._process.kill()
        self._process.wait()

    def destroy(self) -> None:
        """Until nothing is left: no process, no directory."""
        before = _family(self._process.pid)
        self._all(_destroy)
        left = _family(self._process.pid)
        boxes = [each.name for each in self._runtime.iterdir() if each.name.isdecimal()]
        if boxes or len(left) > len(before) - SIZE:
            raise RuntimeError(
                f"destroying left {boxes} and {len(left)} of {len(before)} processes"
            )

    def adopt(self) -> Callable[[], None]:
        """A new service, until every sandbox has answered with what it had."""
        self._start()
        self._all(_check)
        return lambda: self._all(_destroy)

    def start_empty(self) -> Callable[[], None]:
        process, port = start(self._empty_home.name, ready_boxes="0")
        with closing(Api(port)) as api:
            api.json("GET", "/health")

        def stop() -> None:
            process.terminate()
            process.wait()

        return stop

    def close(self) -> None:
        """Also when it is dead: what it left is deleted by another one."""
        if self._process.poll() is not None:
            self._start()
        with closing(Api(self._port)):
            pass  # deletes every sandbox
        self._process.terminate()
        self._process.wait()
        self._home.cleanup()
        self._empty_home.cleanup()

    def _start(self) -> None:
        self._process, self._port = start(self._home.name, ready_boxes="0")

    def _all(self, work: Callable[[Api, str], None]) -> None:
        def share(first: int) -> None:
            api = Api(self._port)
            try:
                for id in IDS[first::AT_ONCE]:
                    work(api, id)
            finally:
                api.disconnect()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(share, range(AT_ONCE)))


def _fill(api: Api, id: str) -> None:
    address = f"/v1/sandboxes/{id}"
    api.json("PUT", address, {})
    api.json("POST", f"{address}/sessions/default/exec", {"command": f"name() {{ echo {id}; }}"})
    if _has_kernel(id):
        api.json("POST", f"{address}/sessions/default/code", {"code": f"name = {id!r}"})


def _check(api: Api, id: str) -> None:
    session = f"/v1/sandboxes/{id}/sessions/default"
    said = api.json("POST", f"{session}/exec", {"command": "name"})["stdout"].strip()
    known = api.json("POST", f"{session}/code", {"code": "name"}) if _has_kernel(id) else None
    if said != id or (known and known["text"] != repr(id)):
        raise RuntimeError(f"{id} lost what it had: {said!r}, {known}")


def _destroy(api: Api, id: str) -> None:
    api.call("DELETE", f"/v1/sandboxes/{id}")


def _has_kernel(id: str) -> bool:
    return id[-1] in "02468"


def _family(pid: int) -> set[int]:
    return set(descendants([pid], set(), {pid}))
