"""Starting the process that becomes a box, and seeing it end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from interpreter import landlock, seccomp, walls
from interpreter.family import gone
from interpreter.walls import BoxPlan


def prepare(plan: BoxPlan) -> None:
    directories = [
        plan.run / "kernels",
        plan.run / "env",
        plan.files / "workspace",
        plan.files / "home",
    ]
    if plan.tier == "process":
        directories += [plan.files / "tmp", plan.run / "shell"]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        if plan.uid is not None and directory.name != "env":
            os.chown(directory, plan.uid, plan.uid)
    (plan.run / "kernels").chmod(0o700)


JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 1; shift; done; shift; exec "$@"'
"""A process joins its control groups before it starts anything that would be left outside."""


def launch(
    plan: BoxPlan, listener: socket.socket, log: IO[bytes], joins: Sequence[str] = ()
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
        json.dumps(plan.rlimits),
    ]
    join = ["/bin/sh", "-c", JOIN, "join", *joins, "--"] if joins else []
    with ExitStack() as ours:
        read, passed = _fds(plan, ours)
        if plan.tier == "process":
            report = int(passed["--info-fd"])
            argv = landlock.command(plan, init, listening=fd, report=report)
        else:
            words = [word for pair in passed.items() for word in pair]
            argv = walls.command(plan, init, fds=words)
        process = subprocess.Popen(
            [*join, *argv],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(fd, *map(int, passed.values())),
            start_new_session=True,
        )
    return process, read


def _fds(plan: BoxPlan, ours: ExitStack) -> tuple[int | None, dict[str, str]]:
    """Where we are told the pid of init, and what is handed over by bwrap's option for it."""
    if plan.tier == "none":
        return None, {}
    passed = {}
    if plan.confined and (architecture := seccomp.here()):
        filter_fd = seccomp.descriptor(architecture)
        ours.callback(os.close, filter_fd)
        passed["--seccomp"] = str(filter_fd)
    read, write = os.pipe()
    ours.callback(os.close, write)
    return read, passed | {"--info-fd": str(write)}


async def end_of(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:
        return
    pidfd = os.pidfd_open(process.pid)
    try:
        await gone(pidfd)
        process.wait()
    finally:
        os.close(pidfd)


def tail(log: Path) -> str:
    return log.read_bytes()[-800:].decode(errors="replace").strip()
