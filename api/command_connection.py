"""How the commands reach a service, and how they end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, NoReturn

import typer

from interpreter.client import AsyncClient
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import CellshellError, InvalidRequest, SessionNotFound

DEFAULT_URL = "http://127.0.0.1:8000"
INTERRUPTED = 130
BROKEN_PIPE = 141

Url = Annotated[str, typer.Option(envvar="CELLSHELL_URL", help="Where the service is.")]
Token = Annotated[
    str | None, typer.Option(envvar="CELLSHELL_TOKEN", help="The token it asks for, if any.")
]
SandboxId = Annotated[
    str, typer.Option("--sandbox", "-s", envvar="CELLSHELL_SANDBOX", help="Made if it is missing.")
]
SessionId = Annotated[
    str, typer.Option("--session", envvar="CELLSHELL_SESSION", help="Made if it is missing.")
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="End it after that many seconds; status 124.")
]
Cwd = Annotated[str | None, typer.Option("--cwd", help="Working directory, for this run alone.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", metavar="NAME=VALUE", help="For this run alone; repeatable."),
]


@dataclass(frozen=True)
class Address:
    """Which service, sandbox and session a command is about."""

    url: str = DEFAULT_URL
    token: str | None = None
    sandbox: str = "default"
    session: str = "default"

    def client(self) -> AsyncClient:
        return AsyncClient(self.url, self.token)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncSandbox | AsyncSession]:
        """The session, made with its sandbox where they are missing."""
        async with self.client() as client:
            sandbox = await client.get_sandbox(self.sandbox)
            yield await _session(sandbox, self.session)


async def _session(sandbox: AsyncSandbox, id: str) -> AsyncSandbox | AsyncSession:
    if id == "default":
        return sandbox
    try:
        return await sandbox.get_session(id)
    except SessionNotFound:
        return await sandbox.create_session(id)


def finish(
    work: Coroutine[None, None, int | None],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> NoReturn:
    """Runs a command's work and exits with its status; errors are one line, never a traceback."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            status = runner.run(work)
    except CellshellError as error:
        fail(error)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        silence()
        status = BROKEN_PIPE
    except OSError as error:
        fail(CellshellError(f"{error.strerror or error}: {error.filename or 'no file named'}"))
    raise typer.Exit(status or 0)


def fail(error: CellshellError) -> NoReturn:
    """Says what is wrong; status 2 when the command itself was, otherwise 1."""
    say(" ".join(error.message.split()))
    raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1)


def say(message: str) -> None:
    """One line for the person, apart from the output."""
    line = f"cellshell: {visible(message)}\n"
    sys.stderr.write(line.encode("utf-8", "replace").decode())
    sys.stderr.flush()


def show(data: bytes, descriptor: int = 1) -> None:
    """Writes all of it, exactly, to standard output or standard error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def silence() -> None:
    """Nobody reads any more: what Python still flushes at its end goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def visible(text: str) -> str:
    """Text of unknown origin without control characters, which could act on the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def variables(pairs: list[str] | None) -> dict[str, str | None] | None:
    """`NAME=VALUE` sets, `NAME` alone unsets."""
    if not pairs:
        return None
    split = (pair.partition("=") for pair in pairs)
    return {name: value if equals else None for name, equals, value in split}
