"""What a sandbox uses, told by its control group, or added up from what /proc says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from interpreter.cgroup import Reading
from interpreter.disks import Disk
from interpreter.family import below
from interpreter.limit_models import Limits, Usage

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Sum(NamedTuple):
    """Of the processes that run now; memory that several of them share counts once for each."""

    memory: int
    cpu_seconds: float
    threads: int
    open_files: int


def measure(
    root: int | None, reading: Reading, limits: Limits, disk: Disk | None, files: Iterable[Path]
) -> Usage:
    """`root` is init's pid on the host; None: no box runs. `files` are added up where the sandbox
    has no file system of its own."""
    total = _sum([each.pid for each in below(root)] if root is not None else [])
    used = disk.used() if disk else None
    return Usage(
        memory_bytes=total.memory if reading.memory is None else reading.memory,
        memory_peak_bytes=reading.memory_peak,
        memory_limit_bytes=limits.memory_bytes,
        cpu_seconds=total.cpu_seconds if reading.cpu_seconds is None else reading.cpu_seconds,
        pids=total.threads if reading.pids is None else reading.pids,
        pids_limit=limits.pids,
        disk_bytes=sum(map(_size, files)) if used is None else used,
        disk_limit_bytes=limits.disk_bytes,
        disk_measured="walk" if used is None else "image",
        open_files=total.open_files,
    )


def _sum(pids: Iterable[int]) -> Sum:
    memory = ticks = threads = files = 0
    for pid in pids:
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            threads += int(fields[17])
            memory += int(fields[21]) * PAGE
            files += len(os.listdir(f"/proc/{pid}/fd"))
    return Sum(memory, ticks / TICKS, threads, files)


def _size(directory: Path) -> int:
    """Bytes on disk of what is in a directory; links are not followed, nor read twice.

    A tree of any depth is read with one descriptor at a time; what is beyond PATH_MAX is left out.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    waiting = [str(directory)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                    elif (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_blocks * 512
    return total
