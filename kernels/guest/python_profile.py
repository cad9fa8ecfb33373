"""Where IPython has its profile: it makes one, and does not start where it cannot.

Loaded by path inside the kernel's process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

DIRECTORIES = ("log", "pid", "security", "startup")
IN_MEMORY = "/dev/shm"


@contextmanager
def place() -> Iterator[None]:
    """On a full disk IPython looks for it in memory: a directory takes no room there, even where
    that is full too."""
    usual = os.environ.get("IPYTHONDIR")
    try:
        _make(usual or os.path.expanduser("~/.ipython"))
    except OSError:
        os.environ["IPYTHONDIR"] = instead = tempfile.mkdtemp(prefix="ipython-", dir=IN_MEMORY)
        _make(instead)
        try:
            yield
        finally:
            del os.environ["IPYTHONDIR"]
            if usual is not None:
                os.environ["IPYTHONDIR"] = usual
    else:
        yield


def _make(directory: str) -> None:
    for name in DIRECTORIES:
        os.makedirs(os.path.join(directory, "profile_default", name), mode=0o700, exist_ok=True)
