"""A real box with one session's environment, for tests of what runs in it."""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from interpreter import bash, walls
from interpreter.box import Box
from interpreter.environment import Environment
from interpreter.models import Logs, StartProcess, WaitFor, WaitResult
from interpreter.process import Process
from interpreter.processes import Processes
from interpreter.walls import BoxPlan, Mount

UID = 61234


class BoxedSession:
    """A box, and what a process or terminal needs of a session."""

    def __init__(self, box: Box, id: str = "default") -> None:
        self.box = box
        self.id = id
        variables = {"PATH": os.defpath, "HOME": box.paths.home, "LANG": "C.UTF-8"}
        self.environment = Environment(cwd=box.paths.workspace, variables=variables, own={})

    async def get_box(self) -> Box:
        return self.box

    def resolve(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.environment.cwd, path))


@asynccontextmanager
async def boxed_session(directory: Path) -> AsyncIterator[BoxedSession]:
    for name in ("files", "run"):
        (directory / name).mkdir()
    confined = shutil.which("bwrap") is not None
    plan = BoxPlan(
        files=directory / "files",
        run=directory / "run",
        uid=UID if confined and os.geteuid() == 0 else None,
        mounts=[Mount(sys.base_prefix, sys.base_prefix)],
        tier="bwrap" if confined else "none",
    )
    walls.write_etc(plan.files / "etc", bash.logout(plan.paths.run))
    box = await Box.start(plan)
    try:
        yield BoxedSession(box)
    finally:
        await box.destroy()


class Run:
    """Starts processes and ends what is left of them."""

    def __init__(self, session: BoxedSession, directory: Path) -> None:
        self.session = session
        self.directory = directory
        self.all = Processes(session.get_box, directory, kept_ended=3)

    async def __call__(self, command: str, **fields: Any) -> Process:
        return await self.all.start(self.session, StartProcess(command=command, **fields))

    async def output(self, command: str, **fields: Any) -> Logs:
        process = await self(command, **fields)
        await process.wait()
        return process.logs()


async def wait_for(process: Process, for_: str, **fields: Any) -> WaitResult:
    return await process.wait_for(WaitFor.model_validate({"for": for_, **fields}))
