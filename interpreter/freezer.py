"""Stopping processes by a control group, of either version.

It lies below the group of a box, and what is to stop is moved into it: so init, which is not,
answers on, and sees it when its last service has left it for good.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from interpreter.family import Seen

NAME = "paused"


class Freezer:
    """`directory` is that of the box's group."""

    def __init__(self, version: int, directory: Path) -> None:
        self.directory = directory / NAME
        self._version = version

    def freeze(self) -> None:
        """What is in it, and whatever comes to be. Raises OSError."""
        self.directory.mkdir(exist_ok=True)
        self._set("FROZEN" if self._version == 1 else "1")

    def thaw(self) -> None:
        with suppress(FileNotFoundError):
            self._set("THAWED" if self._version == 1 else "0")

    def hold(self, seen: Collection[Seen]) -> bool:
        """Have those in it; whether they were, and all stand still. Raises OSError."""
        members = self._members()
        missing = [each.pid for each in seen if not each.over and not _threads(each.pid) & members]
        for pid in missing:
            with suppress(ProcessLookupError):
                (self.directory / "cgroup.procs").write_text(str(pid))
        return not missing and self._is_frozen()

    def _members(self) -> set[int]:
        """Threads: of a process whose first one has ended the others are members without it."""
        name = "tasks" if self._version == 1 else "cgroup.threads"
        return set(map(int, (self.directory / name).read_text().split()))

    def _is_frozen(self) -> bool:
        if self._version == 1:
            return (self.directory / "freezer.state").read_text().strip() == "FROZEN"
        return "frozen 1" in (self.directory / "cgroup.events").read_text().splitlines()

    def _set(self, state: str) -> None:
        name = "freezer.state" if self._version == 1 else "cgroup.freeze"
        (self.directory / name).write_text(state)


def _threads(pid: int) -> set[int]:
    with suppress(OSError):
        return set(map(int, os.listdir(f"/proc/{pid}/task")))
    return set()
