"""A process in a box, as its init runs it for us."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interpreter.box import Box

STANDARD = ("stdin", "stdout", "stderr", "tty")


class BoxProcess:
    """A process init started. The descriptors are non-blocking and the holder's to close."""

    def __init__(
        self, box: Box, pid: int, pidfd: int, ended: asyncio.Future[int], fds: Mapping[str, int]
    ) -> None:
        self._box = box
        self.pid = pid
        self._pidfd = pidfd
        self.host_pid = _host_pid(pidfd) if pidfd >= 0 else -1
        self.ended = ended
        self.stdin = fds.get("stdin")
        self.stdout = fds.get("stdout")
        self.stderr = fds.get("stderr")
        self.tty = fds.get("tty")
        self.kept = {name: fd for name, fd in fds.items() if name not in STANDARD}
        """What else init keeps for it, of a process that was taken up."""

    async def wait(self) -> int:
        """The exit code; negative: the number of the signal that ended it."""
        return await asyncio.shield(self.ended)

    def send_signal(self, signum: int) -> None:
        """To this process alone. Raises ProcessLookupError when it is over."""
        if self.ended.done() or self._pidfd < 0:
            raise ProcessLookupError(f"process {self.pid} has ended")
        signal.pidfd_send_signal(self._pidfd, signum)

    async def discard(self) -> None:
        """End a process that was taken up and is of no use, and close its descriptors."""
        with suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)
        await self.wait()
        for fd in (self.stdin, self.stdout, self.stderr, self.tty, *self.kept.values()):
            if fd is not None:
                os.close(fd)
        await self.release()

    async def release(self, *labels: str) -> None:
        """Let init drop its duplicates: those named, or all once the process has ended."""
        if not labels:
            self.let_go()
        with suppress(OSError):
            await self._box.control.request("release", pid=self.pid, labels=list(labels))
            if not labels:
                self._box.forget(self.pid)

    def let_go(self) -> None:
        """It is not signalled any more. For who cannot wait for init, as `release` does."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _host_pid(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1
