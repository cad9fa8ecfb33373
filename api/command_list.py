"""`cellshell ls` and `cellshell rm`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from api.command_connection import (
    DEFAULT_URL,
    Address,
    SessionId,
    Token,
    Url,
    finish,
    say,
    show,
    visible,
)
from api.command_copy import Remote, parse_end
from interpreter.client import AsyncClient
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import InvalidRequest
from interpreter.models import FileInfo

Target = Annotated[
    str | None, typer.Argument(metavar="[SANDBOX[:PATH]]", help="Default: all sandboxes.")
]
Sandboxes = Annotated[list[str], typer.Argument(metavar="SANDBOX...")]
RemovedSession = Annotated[
    str | None, typer.Option("--session", help="End this session of the sandbox only.")
]
RemovedContext = Annotated[
    str | None, typer.Option("--context", help="End this code context of the session only.")
]
RemovedProcess = Annotated[
    str | None, typer.Option("--process", help="End this process of the sandbox only.")
]


def ls(
    target: Target = None,
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """List sandboxes; the sessions, contexts and processes of one; or files."""
    finish(_ls(Address(url, token, session=session), target))


def rm(
    sandboxes: Sandboxes,
    session: RemovedSession = None,
    context: RemovedContext = None,
    process: RemovedProcess = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Delete sandboxes with their files, or one session, context or process."""
    finish(_rm(Address(url, token), sandboxes, session, context, process))


async def _ls(address: Address, target: str | None) -> None:
    async with address.client() as client:
        if target is None:
            await _show_sandboxes(client)
            return
        end = parse_end(target)
        name = end.sandbox if isinstance(end, Remote) else target
        sandbox = await client.find_sandbox(name or address.sandbox)
        if isinstance(end, Remote):
            place = (
                sandbox
                if address.session == "default"
                else await sandbox.get_session(address.session)
            )
            await _show_files(place, end.path)
        else:
            await _show_sandbox(sandbox)


async def _show_sandboxes(client: AsyncClient) -> None:
    rows = []
    for sandbox in await client.list_sandboxes():
        info = sandbox.info
        network = info.network if isinstance(info.network, str) else "allow"
        sessions = ",".join(info.sessions)
        rows.append((info.id, info.status, info.isolation.tier, network, sessions, info.created_at))
    if rows:
        table(("SANDBOX", "STATUS", "ISOLATION", "NETWORK", "SESSIONS", "CREATED"), rows)
    else:
        say("no sandboxes; `run`, `exec` and `shell` make one")


async def _show_sandbox(sandbox: AsyncSandbox) -> None:
    sessions = await sandbox.list_sessions()
    table(
        ("SESSION", "CWD", "LAST ACTIVITY"),
        [(each.id, each.info.cwd, each.info.last_activity) for each in sessions],
    )
    contexts = [
        (info.id, info.session, info.language, info.state, str(info.execution_count))
        for each in sessions
        for info in each.info.contexts
    ]
    if contexts:
        show(b"\n")
        table(("CONTEXT", "SESSION", "LANGUAGE", "STATE", "RUNS"), contexts)
    processes = [
        (each.id, str(each.pid), each.status, _or_dash(each.exit_code), each.info.command)
        for each in await sandbox.list_processes()
    ]
    if processes:
        show(b"\n")
        table(("PROCESS", "PID", "STATUS", "EXIT", "COMMAND"), processes)


async def _show_files(session: AsyncSandbox | AsyncSession, path: str) -> None:
    info = await session.file_info(path or ".")
    files = await session.list_files(path or ".") if info.type == "directory" else [info]
    table(("MODE", "SIZE", "MODIFIED", "NAME"), map(_file_row, files))


def _file_row(info: FileInfo) -> tuple[str, ...]:
    mark = "/" if info.type == "directory" else f" -> {info.target}" if info.target else ""
    return info.mode, str(info.size), info.modified_at, info.name + mark


async def _rm(
    address: Address,
    sandboxes: Sequence[str],
    session: str | None,
    context: str | None,
    process: str | None,
) -> None:
    async with address.client() as client:
        if session is None and context is None and process is None:
            for id in sandboxes:
                await client.delete_sandbox(id)
            return
        if len(sandboxes) > 1:
            raise InvalidRequest("expected one sandbox with --session, --context or --process")
        sandbox = await client.find_sandbox(sandboxes[0])
        if process is not None:
            await sandbox.kill_process(process)
        if context is not None:
            await (await sandbox.get_session(session or "default")).delete_code_context(context)
        elif session is not None:
            await sandbox.delete_session(session)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; whole, so that they can be cut and searched."""
    cells = [header, *([visible(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        show(("  ".join(padded).rstrip() + "\n").encode("utf-8", "replace"))


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
