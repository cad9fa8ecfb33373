"""Limits that have struck: which one, and with what figures."""

from __future__ import annotations

from interpreter.cgroup import Counters, Group
from interpreter.limit_models import Limits
from interpreter.models import Notice


class Strikes:
    """Of one sandbox. Who in it was struck is not known: whoever fails meanwhile is told."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._group: Group | None = None
        self._told = Counters(0, 0)

    def watch(self, group: Group) -> None:
        """The group of a box that was just started or taken up."""
        self._group = group
        self._told = group.counters()

    def notices(self) -> list[Notice]:
        """What has struck since this was asked last. For what has failed: it reads files."""
        if self._group is None or not self._group:
            return []
        now, before = self._group.counters(), self._told
        self._told = now
        found = []
        if now.kills > before.kills:
            found.append(Notice(code="memory_limit", message=self._killed()))
        if now.refusals > before.refusals:
            message = f"refused: processes limit {self._limits.pids}; the kernel started no more"
            found.append(Notice(code="pids_limit", message=message))
        return found

    def _killed(self) -> str:
        assert self._group
        limit, peak = self._limits.memory_bytes, self._group.peak()
        words = [f"memory limit {_mib(limit)}" if limit else "no memory left on this machine"]
        if peak is not None:
            words.append(f"peak {_mib(peak)}")
        return f"killed: {', '.join(words)}"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
