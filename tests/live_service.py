"""`cellshell serve` in a process of its own, for tests that use it as people do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpreter import Client

ROOT = Path(__file__).parent.parent


def environment(**changes: str) -> dict[str, str]:
    """Ours, for a process that imports the packages."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def cellshell(*words: str | Path) -> list[str]:
    """The command with these words."""
    return [sys.executable, "-m", "api.command", *map(str, words)]


@contextmanager
def serve(home: Path, *words: str) -> Iterator[str]:
    """The address of a service, whose sandboxes end with it."""
    command = cellshell("serve", "--port", "0", "--home", home, *words)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), text=True)
    try:
        url = _address(process)
        try:
            yield url
        finally:
            _remove_sandboxes(url)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]
    raise AssertionError("".join(said))


def _remove_sandboxes(url: str) -> None:
    with Client(url) as client:
        for sandbox in client.list_sandboxes():
            sandbox.destroy()
