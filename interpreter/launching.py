"""Starting the process that becomes a box, and seeing it end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path
from typing import IO

from interpreter import walls
from interpreter.walls import BoxPlan


def prepare(plan: BoxPlan) -> None:
    directories = [
        plan.run / "kernels",
        plan.run / "env",
        plan.files / "workspace",
        plan.files / "home",
    ]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        if plan.uid is not None and directory.name != "env":
            os.chown(directory, plan.uid, plan.uid)
    (plan.run / "kernels").chmod(0o700)


def launch(
    plan: BoxPlan, listener: socket.socket, log: IO[bytes]
) -> tuple[subprocess.Popen[bytes], int | None]:
    """A session and process group of its own: nothing may end because the service does."""
    fd = listener.fileno()
    init = [
        walls.python(),
        "-I",
        "-S",
        "-B",
        f"{plan.paths.guest}/init.py",
        str(fd),
        plan.paths.run,
    ]
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            walls.command(plan, init, fds=["--info-fd", str(write)]),
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(fd, write) if plan.confined else (fd,),
            start_new_session=True,
        )
    finally:
        os.close(write)
    return process, read


async def end_of(process: subprocess.Popen[bytes]) -> None:
    """Without a thread: one for each box would use up the pool that files and git work in."""
    if process.returncode is not None:
        return
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _complete, ended)
    try:
        await ended
        process.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def tail(log: Path) -> str:
    return log.read_bytes()[-800:].decode(errors="replace").strip()
