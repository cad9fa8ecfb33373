"""A box as the place kernels run in."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.trees import kill_all


class BoxPlace:
    """Satisfies `kernels.place.Place`: sockets lie in a directory bound into the box."""

    def __init__(self, box: Box, name: str, *, forked: bool = False, started: bool = True) -> None:
        """What is put here may be `forked`, by the fork server, or `started`."""
        self.box = box
        self.name = name
        self.sockets: Path = box.host_run / "kernels"
        self.inside_sockets = f"{box.paths.run}/kernels"
        self.uid: int | None = box.plan.uid
        self.process: BoxProcess | None = None
        self._forks = box.forks if forked else None
        self._started = started

    async def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> BoxProcess:
        name = f"kernel:{self.name}"
        self.process = None
        if self._forks:
            self.process = await self._forks.fork(self.box, argv, env=env, cwd=cwd, name=name)
        if self.process is None and not self._started:
            raise OSError(errno.EAGAIN, "the fork server does not fork it")
        if self.process is None:
            # A subreaper, so that what a cell leaves behind can be found when the cell is ended.
            self.process = await self.box.spawn(argv, env=env, cwd=cwd, subreaper=True, name=name)
        return self.process

    async def rename(self, name: str) -> None:
        """For the next service, which finds what runs by its name."""
        assert self.process
        self.name = name
        await self.box.control.request("name", pid=self.process.pid, name=f"kernel:{name}")

    async def end(self) -> None:
        """SIGKILL for the kernel and all it started, what left its process group included."""
        if self.process is not None and not self.process.ended.done():
            with suppress(ConnectionError):  # the box has ended, and everything with it
                await kill_all(self.box, [self.process.pid], self.process.ended)

    async def close(self) -> None:
        if self.process is not None:
            await self.process.release()
