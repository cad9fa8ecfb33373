"""Who descends from whom, as /proc tells it."""

from __future__ import annotations

import os
import signal
from collections import deque


def parents() -> dict[int, int]:
    """Every live process here and its parent; zombies left out."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state not in (b"Z", b"X"):
            table[int(entry)] = int(parent)
    return table


def descendants(roots: list[int], spare: set[int], but: set[int]) -> list[int]:
    """Live `roots` and all below them; not what is below `spare`, and not `but` themselves."""
    children: dict[int, list[int]] = {}
    table = parents()
    for pid, parent in table.items():
        children.setdefault(parent, []).append(pid)
    queue = deque(roots)
    seen = set(roots) | spare | {os.getpid()}
    found = []
    while queue:
        pid = queue.popleft()
        if pid in table and pid not in but:
            found.append(pid)
        below = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(below)
        queue.extend(below)
    return found


def end_all() -> None:
    """Kill every descendant. They are stopped first: what is stopped cannot fork."""
    me = os.getpid()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        reached: set[int] = set()
        while found := set(descendants([me], set(), {me})) - reached:
            signal_all(list(found), number)
            reached |= found


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue  # over already, or turned into another user by a setuid program
