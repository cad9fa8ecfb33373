"""Stopping by signals, where there is no freezer: process by process."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from interpreter.family import Seen, look
from interpreter.pausing import Signals, _signal


def test_who_was_forked_while_the_others_were_looked_at(tmp_path: Path) -> None:
    """The parent stands still by then, and its child is not in the list."""
    pause = Signals(tmp_path / "paused.json")
    processes = [subprocess.Popen(["bash", "-c", "while :; do :; done"]) for _ in range(2)]
    parent, child = (process.pid for process in processes)

    def seen(*pids: int) -> list[Seen]:
        return [found for pid in pids if (found := look(pid))]

    try:
        while not pause.hold(seen(parent)):
            time.sleep(0.002)
        for _ in range(2):
            assert not pause.hold(seen(parent, child))
            os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
        assert pause.hold(seen(parent, child))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_signals_go_to_nobody_else() -> None:
    """A number whose process has another start than was noted belongs to somebody else."""
    _signal(os.getpid(), 1, 9)
