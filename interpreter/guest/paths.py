"""Small steps on paths in the box, which its code may have put anything at."""

from __future__ import annotations

import contextlib
import os


def can_enter(path: bytes) -> bool:
    return os.path.isdir(path) and os.access(path, os.X_OK)


def drop(path: str) -> None:
    """What the box's code has put there instead, or taken away, is no error of ours."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_directory(path: str) -> None:
    try:
        for name in os.listdir(path):
            drop(f"{path}/{name}")
        os.rmdir(path)
    except OSError:
        pass
