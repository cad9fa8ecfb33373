"""`cellshell cp`: files and directories in and out."""

# ruff: noqa: ASYNC230, ASYNC240 - nothing else runs on the loop of a command

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from api.command_archive import packing, unpack
from api.command_connection import (
    DEFAULT_URL,
    Address,
    SandboxId,
    SessionId,
    Token,
    Url,
    finish,
    show,
)
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import FileNotFound, InvalidRequest, NotADirectory

Place = AsyncSandbox | AsyncSession

STANDARD = "-"
HELP = "A local path, SANDBOX:PATH, :PATH in the sandbox of --sandbox, or - for standard "

Source = Annotated[str, typer.Argument(help=HELP + "input.")]
Destination = Annotated[str, typer.Argument(help=HELP + "output.")]


@dataclass(frozen=True)
class Remote:
    """A path in a sandbox; the empty name stands for the sandbox of the options."""

    sandbox: str
    path: str


def cp(
    source: Source,
    destination: Destination,
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Copy files and directories into a sandbox, or out of one."""
    origin, target = parse_end(source), parse_end(destination)
    finish(_cp(origin, target, url, token, sandbox, session))


def parse_end(text: str) -> Remote | str:
    """`SANDBOX:PATH` or a local path; `./a:b` is a local one with a colon."""
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?:(.*)", text, re.DOTALL)
    return Remote(found[1] or "", found[2]) if found else text


async def _cp(
    origin: Remote | str,
    target: Remote | str,
    url: str,
    token: str | None,
    sandbox: str,
    session: str,
) -> None:
    if isinstance(origin, Remote) == isinstance(target, Remote):
        raise InvalidRequest(
            "expected one of the two to be SANDBOX:PATH, the other a local path or -"
        )
    remote = origin if isinstance(origin, Remote) else target
    assert isinstance(remote, Remote)
    async with Address(url, token, remote.sandbox or sandbox, session).open() as place:
        if isinstance(target, Remote):
            await upload(place, str(origin), target.path or ".")
        else:
            await download(place, remote.path or ".", target)


async def upload(place: Place, source: str, target: str) -> None:
    """A local file, directory or standard input to a path in a sandbox."""
    if source == STANDARD:
        await place.write_file(target, sys.stdin.buffer)
        return
    local = Path(source)
    if target.endswith("/") or await _is_directory(place, target):
        target = f"{target.rstrip('/')}/{local.resolve().name}"
    if local.is_dir():
        async with packing(local) as archive:
            await place.upload_archive(target, archive)
        return
    with local.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        await place.write_file(target, file, mode=f"{mode:04o}")


async def download(place: Place, source: str, target: str) -> None:
    """A file or directory of a sandbox to a local path or standard output."""
    if target == STANDARD:
        await _print(place.read_file_stream(source))
        return
    local = Path(target)
    if local.is_dir():
        local = local / PurePosixPath(source).name
    if await _is_directory(place, source):
        async with aclosing(place.download_archive(source)) as archive:
            await unpack(archive, local)
    else:
        await _save(place.read_file_stream(source), local)


async def _is_directory(place: Place, path: str) -> bool:
    """Also through a symbolic link."""
    try:
        return (await place.file_info(f"{path.rstrip('/')}/.")).type == "directory"
    except (FileNotFound, NotADirectory):
        return False


async def _print(content: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(content) as pieces:
        async for piece in pieces:
            show(piece)


async def _save(content: AsyncGenerator[bytes, None], local: Path) -> None:
    """Whole or not at all: what was there stays until everything has come."""
    if local.exists() and not local.is_file():
        await _write(content, local)
        return
    partial = local.with_name(f".{local.name}.{secrets.token_hex(4)}.part")
    try:
        await _write(content, partial)
        partial.replace(local)
    finally:
        partial.unlink(missing_ok=True)


async def _write(content: AsyncGenerator[bytes, None], local: Path) -> None:
    async with aclosing(content) as pieces:
        with local.open("wb") as file:
            async for piece in pieces:
                file.write(piece)
