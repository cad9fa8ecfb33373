"""This machine as a place for kernels: no walls, for code that is trusted as this process is."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class MachineProcess:
    """A process beside this one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)


class Machine:
    """Starts kernels beside this process; `close` ends what they left in their process groups."""

    uid = None

    def __init__(self, sockets: Path) -> None:
        self.sockets = sockets
        self.inside_sockets = str(sockets)
        self._groups: list[int] = []

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str
    ) -> MachineProcess:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
        )
        self._groups.append(process.pid)
        return MachineProcess(process)

    def close(self) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
