"""The command `cellshell`, run as people run it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from live_service import cellshell, environment


class Command:
    """Runs `cellshell` in an empty directory."""

    def __init__(self, url: str, directory: Path) -> None:
        self.directory = directory
        self.environment = environment(CELLSHELL_URL=url)

    def __call__(self, *words: str | Path, stdin: bytes | None = None) -> tuple[int, bytes, str]:
        done = subprocess.run(
            cellshell(*words),
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=60,
        )
        assert not re.search(rb"^Traceback", done.stderr, re.MULTILINE)
        return done.returncode, done.stdout, done.stderr.decode()

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            cellshell(*words),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
