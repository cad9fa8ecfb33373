"""What a run of the tests leaves behind: every process that descends from it and still runs.

Boxes outlive the service that made them, and with it they would leave our line of descent. So the
test run declares itself the one who adopts orphans: then nothing of its own gets lost, and nothing
of another run on the same machine is taken for its own.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from interpreter.guest.family import descendants

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 5.0
"""Seconds for what was told to end during the last test's clean-up."""


def adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def left_behind() -> dict[int, str]:
    """Processes that do not end, with their command lines. They are killed, once they are known."""
    if sys.platform != "linux":
        return {}
    deadline = time.monotonic() + PATIENCE
    while (running := _running()) and time.monotonic() < deadline:
        _reap()
        _wait(running[0], 0.1)
    found = {pid: _command_line(pid) for pid in _running()}
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _running() -> list[int]:
    return descendants([os.getpid()], set(), {os.getpid()})


def _reap() -> None:
    """Orphans that have ended: an init would do it, and the end of a box waits for those in it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _wait(pid: int, timeout: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(max(0, timeout) * 1000)
    os.close(pidfd)


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "(ended meanwhile)"
    return words.replace(b"\0", b" ").decode(errors="replace")[:300] or _state(pid)


def _state(pid: int) -> str:
    """Of one that has no command line any more."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return " ".join(line for line in status if line.startswith(("Name", "State", "PPid")))
    return "(ended meanwhile)"
