"""The control group of one box, version 1 or 2 of each controller."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from interpreter.family import gone
from interpreter.freezer import Freezer
from interpreter.limit_models import Limits

PERIOD = 100_000
"""Microseconds over which processor time is shared out."""
OVERHEAD = 2
"""Processes that hold a box up: bwrap outside of it, and init."""
PASSES = 100
PATIENCE = 10.0
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a controller's files are."""

    version: int
    directory: Path


class Names(NamedTuple):
    """What the same file is called in each version."""

    join: str
    memory: str
    memory_limit: str
    memory_peak: str
    memory_events: str
    memory_cache: str


NAMES = {
    # `0` written to `tasks` moves the writer without the lock that `cgroup.procs` waits 10 ms for.
    1: Names(
        join="tasks",
        memory="memory.usage_in_bytes",
        memory_limit="memory.limit_in_bytes",
        memory_peak="memory.max_usage_in_bytes",
        memory_events="memory.oom_control",
        memory_cache="total_inactive_file",
    ),
    2: Names(
        join="cgroup.procs",
        memory="memory.current",
        memory_limit="memory.max",
        memory_peak="memory.peak",
        memory_events="memory.events",
        memory_cache="inactive_file",
    ),
}


class Counters(NamedTuple):
    """What has happened in a group since it was made."""

    kills: int
    """Processes killed for want of memory."""
    refusals: int
    """Processes and threads that were not started."""


class Reading(NamedTuple):
    """What a group uses now; None: not counted here."""

    memory: int | None
    memory_peak: int | None
    cpu_seconds: float | None
    pids: int | None


class Group:
    """`places` are by controller: memory, cpu, cpuacct, pids, freezer; any may be missing."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = dict(places)
        self._directories = list(dict.fromkeys(place.directory for place in places.values()))

    def __bool__(self) -> bool:
        return bool(self._places)

    def has(self, controller: str) -> bool:
        return controller in self._places

    @property
    def exists(self) -> bool:
        return any(directory.is_dir() for directory in self._directories)

    @property
    def joins(self) -> list[str]:
        """Files that a process writes `0` to, to be in the group with all it starts."""
        places = [place for name, place in self._places.items() if name != "freezer"]
        joins = {place.directory: NAMES[place.version].join for place in places}
        return [str(directory / name) for directory, name in joins.items()]

    @property
    def freezer(self) -> Freezer | None:
        """None where there is none, also for a box that was started without."""
        place = self._places.get("freezer")
        return Freezer(*place) if place and place.directory.is_dir() else None

    def create(self, limits: Limits) -> None:
        """Raises OSError where the kernel refuses a limit; then nothing is left of the group."""
        try:
            for directory in self._directories:
                directory.mkdir()
            self._limit(limits)
        except BaseException:
            for directory in self._directories:
                with suppress(OSError):
                    directory.rmdir()
            raise

    def counters(self) -> Counters:
        return Counters(
            self._keyed("memory", self._names("memory").memory_events, "oom_kill") or 0,
            self._keyed("pids", "pids.events", "max") or 0,
        )

    def peak(self) -> int | None:
        return self._number("memory", self._names("memory").memory_peak)

    def reading(self) -> Reading:
        names = self._names("memory")
        memory = self._number("memory", names.memory)
        cache = self._keyed("memory", "memory.stat", names.memory_cache) or 0
        pids = self._number("pids", "pids.current")
        return Reading(
            memory=None if memory is None else max(0, memory - cache),
            memory_peak=self.peak(),
            cpu_seconds=self._cpu_seconds(),
            pids=None if pids is None else max(0, pids - OVERHEAD),
        )

    def processes(self) -> set[int]:
        found: set[int] = set()
        inner = [self.freezer.directory] if self.freezer else []
        for directory in [*self._directories, *inner]:
            with suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
        return found

    async def remove(self) -> None:
        """Kill what runs in it, wait for its end, remove it. Logged where that does not work."""
        for _ in range(PASSES):
            try:
                if await self._empty():
                    if self._removed():
                        return
                    # What has ended is still being taken apart, and version 1 tells nobody when.
                    await asyncio.sleep(0.01)
            except TimeoutError:
                break
        _log.warning("%s could not be removed", self._directories[0])

    async def _empty(self) -> bool:
        """One pass; whether nothing was there to be killed."""
        self._strike()
        with ExitStack() as stack:
            handles = {}
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    handles[pid] = os.pidfd_open(pid)
                    stack.callback(os.close, handles[pid])
            # Still listed, so the handle is not of another process that has got the number since.
            found = handles.keys() & self.processes()
            for pid in found:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handles[pid], signal.SIGKILL)
            if self.freezer:
                self.freezer.thaw()  # in version 1 what is frozen does not even end
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(gone(handles[pid]) for pid in found))
        return not found

    def _strike(self) -> None:
        """Version 2 kills all at once; in both nothing is forked from here on."""
        for directory in self._directories:
            if (directory / "cgroup.kill").exists():
                (directory / "cgroup.kill").write_text("1")
        place = self._places.get("pids")
        if place and place.directory.is_dir():
            (place.directory / "pids.max").write_text("0")

    def _removed(self) -> bool:
        inner = [self.freezer.directory] if self.freezer else []
        for directory in [*inner, *self._directories]:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
        return True

    def _limit(self, limits: Limits) -> None:
        if limits.memory_bytes is not None:
            self._limit_memory(limits.memory_bytes)
        if limits.cpus is not None:
            quota = round(limits.cpus * PERIOD)
            if self._places["cpu"].version == 1:
                self._write("cpu", "cpu.cfs_period_us", PERIOD)
                self._write("cpu", "cpu.cfs_quota_us", quota)
            else:
                self._write("cpu", "cpu.max", f"{quota} {PERIOD}")
        if limits.pids is not None and self.has("pids"):
            self._write("pids", "pids.max", limits.pids + OVERHEAD)

    def _limit_memory(self, limit: int) -> None:
        """Swap is no way around it, where the kernel has any."""
        self._write("memory", self._names("memory").memory_limit, limit)
        directory = self._places["memory"].directory
        for name, value in (
            ("memory.memsw.limit_in_bytes", limit),
            ("memory.swappiness", 0),
            ("memory.swap.max", 0),
        ):
            if (directory / name).exists():
                self._write("memory", name, value)

    def _cpu_seconds(self) -> float | None:
        place = self._places.get("cpuacct")
        if place is None:
            return None
        if place.version == 1:
            spent = self._number("cpuacct", "cpuacct.usage")
            return None if spent is None else spent / 1e9
        spent = self._keyed("cpuacct", "cpu.stat", "usage_usec")
        return None if spent is None else spent / 1e6

    def _names(self, controller: str) -> Names:
        place = self._places.get(controller)
        return NAMES[place.version if place else 2]

    def _write(self, controller: str, name: str, value: int | str) -> None:
        (self._places[controller].directory / name).write_text(str(value))

    def _read(self, controller: str, name: str) -> str | None:
        place = self._places.get(controller)
        if place is None:
            return None
        try:
            with open(place.directory / name) as file:
                return file.read()
        except OSError:
            return None

    def _number(self, controller: str, name: str) -> int | None:
        text = self._read(controller, name)
        return int(text) if text is not None and text.strip().isdigit() else None

    def _keyed(self, controller: str, name: str, key: str) -> int | None:
        """The number behind `key` in a file of such lines."""
        for line in (self._read(controller, name) or "").splitlines():
            found, _, value = line.partition(" ")
            if found == key:
                return int(value)
        return None
