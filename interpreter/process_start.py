"""Starting a background process: where, with what, and what can be in the way."""

from __future__ import annotations

import errno
import os
import posixpath
import secrets
from typing import TYPE_CHECKING, Literal, Protocol

from interpreter.errors import AtCapacity, DiskFull, InvalidCwd, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interpreter.box import Box
    from interpreter.box_process import BoxProcess
    from interpreter.environment import Environment

LONG_COMMAND = 100 * 1024
"""Linux refuses one argument beyond 128 KiB."""


class Starter(Protocol):
    """What is needed of a session here."""

    @property
    def id(self) -> str: ...
    @property
    def environment(self) -> Environment: ...
    def resolve(self, path: str) -> str:
        """An absolute path, as the code in the box sees it."""
        ...


async def directory(box: Box, session: Starter, wanted: str | None) -> str:
    """A missing directory of the session's own is replaced by the nearest that exists."""
    if wanted is None:
        return await box.directory(session.environment.cwd)
    path = session.resolve(wanted)
    if await box.directory(path) != path:
        raise InvalidCwd(
            f"expected `cwd` to be a directory that can be entered, got {wanted!r}: "
            "create it first",
            cwd=wanted,
        )
    return path


def environment(session: Starter, own: Mapping[str, str | None] | None, cwd: str) -> dict[str, str]:
    """The session's, with one call's own on top; bash finds out itself what `..` leads to."""
    env = session.environment.overlaid(own)
    if posixpath.normpath(cwd) == cwd:
        env["PWD"] = cwd
    return env


async def spawn(
    box: Box,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    name: str,
    tty: tuple[int, int] | None = None,
) -> BoxProcess:
    """On pipes, or on a terminal of that size."""
    stdio: Literal["null", "pipe"] = "null" if tty else "pipe"
    try:
        return await box.spawn(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdio,
            stdout=stdio,
            stderr=stdio,
            tty=tty,
            subreaper=True,
            name=name,
        )
    except OSError as error:
        raise _refusal(error, cwd) from error


async def script(box: Box, command: str) -> str | None:
    """A file in the box for a command that is too long to be an argument."""
    data = command.encode()
    if len(data) <= LONG_COMMAND:
        return None
    path = f"{box.paths.run}/command-{secrets.token_hex(8)}"
    try:
        fd = await box.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise disk_full(error) from error
    return path


def _refusal(error: OSError, cwd: str) -> Exception:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EACCES:
            return InvalidCwd(f"{cwd!r} went away or cannot be entered: create it first", cwd=cwd)
        case errno.E2BIG:
            return InvalidRequest(
                "command and environment together are more than Linux starts a program with "
                "(2 MiB): write the command to a file, or unset variables"
            )
        case errno.EAGAIN | errno.ENOMEM | errno.EMFILE | errno.ENFILE:
            return AtCapacity(
                "the sandbox can start no more processes: end some, or raise its limits"
            )
    return error


def disk_full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("no space is left to start a process: remove files")
    return error
