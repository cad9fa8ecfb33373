"""Processes of a box, as the host's /proc tells of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

OVER = b"ZXx"
_TICKS = os.sysconf("SC_CLK_TCK")


def children(host_pid: int) -> list[int]:
    """Host pids of the children of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{host_pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


class Seen(NamedTuple):
    """A process as /proc tells of it; `started` in ticks since boot tells it from its successor."""

    pid: int
    parent: int
    state: bytes
    started: int

    @property
    def over(self) -> bool:
        return self.state in OVER


def look(pid: int) -> Seen | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    state = fields[0]
    if state in OVER and int(fields[17]) > 1:  # its first thread has ended, and others go on
        state = _state_of_others(pid)
    return Seen(pid, int(fields[1]), state, int(fields[19]))


def _state_of_others(pid: int) -> bytes:
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            state = stat.read_bytes().rpartition(b")")[2].split()[0]
            if state not in OVER:
                return state
    return b"Z"


def below(root: int, spare: Collection[int] = ()) -> list[Seen]:
    """All descendants, parents before their children; not `spare`, nor what is below them."""
    children: dict[int, list[Seen]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (seen := look(int(name))):
            children.setdefault(seen.parent, []).append(seen)
    found: list[Seen] = []
    waiting = deque([root])
    while waiting:
        wanted = [each for each in children.get(waiting.popleft(), ()) if each.pid not in spare]
        found += wanted
        waiting.extend(each.pid for each in wanted)
    return found


def main_children(host_pid: int) -> list[int]:
    """The same for a process of one thread, which bash is: one file to read."""
    try:
        fd = os.open(f"/proc/{host_pid}/task/{host_pid}/children", os.O_RDONLY)
    except OSError:
        return []
    with open(fd, "rb", buffering=0) as file:
        return [int(pid) for pid in file.read().split()]


def ticks() -> int:
    """Now, in clock ticks since boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def started(host_pid: int) -> int:
    """When a process began, in clock ticks since boot; -1 for one that is gone."""
    seen = look(host_pid)
    return seen.started if seen else -1


def inside_pid(host_pid: int) -> int:
    """Its pid as the box counts."""
    with suppress(OSError):
        for line in Path(f"/proc/{host_pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return host_pid


async def gone(pidfd: int) -> None:
    """Until the process has ended. Without a thread: there may be one for each box."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _complete, ended)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
