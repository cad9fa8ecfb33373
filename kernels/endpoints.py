"""Where this side reaches a kernel: sockets that are opened once, and then cannot be exchanged.

The directory belongs to the place, so its code may put a link to any socket of this machine where
the kernel's own is expected. Hence a socket is opened without following links as soon as it is
there, and ZeroMQ connects to what was opened.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kernels.errors import KernelFailed
from kernels.outcome import Death
from kernels.place import PlacedProcess

CHANNELS = {"shell": 1, "stdin": 2, "iopub": 3, "hb": 4, "control": 5}
"""In the order of jupyter_client's ports."""
NEEDED = ("iopub", "shell", "control", "stdin")
IN_CREATE = 0x100


class Endpoints:
    """The sockets of one kernel, for this process. Closed when its connections are."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._addresses: dict[str, str] = {}

    def __getitem__(self, channel: str) -> str:
        return self._addresses[channel]

    async def open(self, prefix: Path) -> None:
        """Wait until all sockets `<prefix>-N` are there."""
        paths = {name: Path(f"{prefix}-{CHANNELS[name]}") for name in NEEDED}
        if sys.platform != "linux":
            self._addresses = {name: f"ipc://{path}" for name, path in paths.items()}
            return
        with _created(prefix.parent) as created:
            while not self._open_those_there(paths):
                created.clear()
                await created.wait()

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _open_those_there(self, paths: Mapping[str, Path]) -> bool:
        for name, path in paths.items():
            if name not in self._descriptors:
                descriptor = _open_socket(path)
                if descriptor is None:
                    return False
                self._descriptors[name] = descriptor
                self._addresses[name] = f"ipc:///proc/self/fd/{descriptor}"
        return True


async def opened(process: PlacedProcess, prefix: Path) -> Endpoints:
    """The sockets of a kernel. Raises KernelFailed when its process ends before they are there."""
    endpoints = Endpoints()
    opening = asyncio.ensure_future(endpoints.open(prefix))
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({opening, ending}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            await opening
            return endpoints
        raise KernelFailed(
            f"expected the kernel to come up, and it ended with {Death.of(ending.result())}: "
            "look at its log"
        )
    except BaseException:
        endpoints.close()
        raise
    finally:
        opening.cancel()
        ending.cancel()


def _open_socket(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.ENOTSOCK, "expected a socket", str(path))
    return None


@contextmanager
def _created(directory: Path) -> Iterator[asyncio.Event]:
    """Set whenever something is created in the directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    created = asyncio.Event()
    loop = asyncio.get_running_loop()
    watch = _check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def read() -> None:
        with suppress(BlockingIOError):
            os.read(watch, 65536)
        created.set()

    try:
        _check(libc.inotify_add_watch(watch, os.fsencode(directory), IN_CREATE))
        loop.add_reader(watch, read)
        yield created
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
