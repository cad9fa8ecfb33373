"""What is left of boxes that nobody will take up: of sandboxes whose deletion was cut short."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from interpreter.family import gone
from interpreter.removal import remove_tree

PATIENCE = 10.0
_log = logging.getLogger(__name__)


async def sweep(
    runtime: Path, sandboxes: Path, numbers: Collection[int], ids: Collection[str]
) -> int:
    """End boxes of other numbers and remove files of other ids; how many of both there were.

    `runtime` holds a directory for each box, by number, and `sandboxes` one for each id.
    """
    boxes = [each for each in _directories(runtime) if _is_left(each.name, numbers)]
    for directory in boxes:
        await _end(directory / "control")
        await asyncio.to_thread(remove_tree, directory)
    files = [each for each in _directories(sandboxes) if each.name not in ids]
    for directory in files:
        await asyncio.to_thread(remove_tree, directory)
    if boxes or files:
        _log.warning("removed what was left of %d boxes and %d sandboxes", len(boxes), len(files))
    return len(boxes) + len(files)


def _directories(path: Path) -> list[Path]:
    with suppress(FileNotFoundError):
        return [each for each in path.iterdir() if each.is_dir() and not each.is_symlink()]
    return []


def _is_left(name: str, numbers: Collection[int]) -> bool:
    return name.isdecimal() and int(name) not in numbers


async def _end(control: Path) -> None:
    """Kill the init that listens there; with it ends everything in its box."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(str(control))
        except OSError:
            return  # nobody does
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("iII", credentials)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                await gone(pidfd)
        except (ProcessLookupError, TimeoutError):
            _log.warning("a box that nobody needs does not end: process %d", pid)
        finally:
            os.close(pidfd)
