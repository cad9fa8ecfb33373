"""`cellshell run` and `cellshell exec`."""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import stat
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from api.command_connection import (
    DEFAULT_URL,
    INTERRUPTED,
    Address,
    Cwd,
    SandboxId,
    SessionId,
    Timeout,
    Token,
    Url,
    Variables,
    finish,
    say,
    show,
    variables,
)
from api.command_output import OutputPrinter
from interpreter.client_running import RunOptions
from interpreter.errors import CellshellError, InvalidRequest
from interpreter.events import Event

TIMED_OUT = 124
LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".ts": "typescript"}
LANGUAGES |= {".r": "r", ".ipy": "python"}

File = Annotated[str | None, typer.Argument(help="A file with code; `-` for standard input.")]
Code = Annotated[str | None, typer.Option("--code", "-c", help="The code itself.")]
LanguageName = Annotated[
    str | None, typer.Option("--language", "-l", help="By default told from the file's name.")
]
ContextId = Annotated[str | None, typer.Option("--context", help="Run in this code context.")]
Directory = Annotated[Path, typer.Option("--save", help="Where pictures are saved.")]
Command = Annotated[
    list[str],
    typer.Argument(help="One word: a line for the shell. Several: a program and its arguments."),
]
NoStdin = Annotated[bool, typer.Option("--no-stdin", "-n", help="Do not read standard input.")]


@dataclass(frozen=True)
class Source:
    """Code, a name for the files that it makes, and its language if that is known."""

    name: str
    code: str
    language: str | None = None


def run(
    file: File = None,
    code: Code = None,
    language: LanguageName = None,
    context: ContextId = None,
    save: Directory = Path(),
    cwd: Cwd = None,
    env: Variables = None,
    timeout: Timeout = None,
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Run code and show its output as it comes; pictures are saved as files."""
    address = Address(url, token, sandbox, session)

    async def work() -> int:
        source = _source(file, code)
        printer = OutputPrinter(save, source.name)
        return await _run(address, source, language, context, printer, _options(cwd, env, timeout))

    finish(work())


def exec(
    command: Command,
    no_stdin: NoStdin = False,
    cwd: Cwd = None,
    env: Variables = None,
    timeout: Timeout = None,
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Run a command in the sandbox's shell; its exit status becomes ours."""
    line = command[0] if len(command) == 1 else shlex.join(command)
    address = Address(url, token, sandbox, session)
    finish(_exec(address, line, not no_stdin, _options(cwd, env, timeout)))


async def _run(
    address: Address,
    source: Source,
    language: str | None,
    context: str | None,
    printer: OutputPrinter,
    options: RunOptions,
) -> int:
    if context is None:
        language = language or source.language
    async with address.open() as session:
        stream = session.run_code_stream(source.code, language=language, context=context, **options)
        async with aclosing(stream) as events:
            async for event in events:
                if event.name == "output":
                    printer.output(event.data.get("output") or {})
                elif event.name == "display_update":
                    printer.display(event.data.get("data") or {})
                elif event.name == "done":
                    return _status_of_code(event)
    raise CellshellError("expected the event `done` at the end of the run, got none")


async def _exec(address: Address, line: str, with_stdin: bool, options: RunOptions) -> int:
    piped = sys.stdin.buffer.read() if with_stdin and _is_piped() else None
    stdin = base64.b64encode(piped).decode() if piped is not None else None
    async with address.open() as session:
        stream = session.exec_stream(line, encoding="base64", stdin=stdin, **options)
        shown = 0
        async with aclosing(stream) as events:
            async for event in events:
                if event.name in ("stdout", "stderr"):
                    data = _decoded(event.text)
                    show(data, 1 if event.name == "stdout" else 2)
                    shown += len(data)
                elif event.name == "done":
                    _remark_loss(event, shown)
                    return _status_of_command(event)
    raise CellshellError("expected the event `done` at the end of the command, got none")


def _options(cwd: str | None, env: list[str] | None, timeout: float | None) -> RunOptions:
    return {"cwd": cwd, "env": variables(env), "timeout": timeout}


def _source(file: str | None, code: str | None) -> Source:
    if (file is None) == (code is None):
        raise InvalidRequest("expected a file with code, or code after -c; see --help")
    if code is not None:
        return Source("output", code)
    if file == "-":
        return Source("output", _text(sys.stdin.buffer.read(), "standard input"))
    path = Path(str(file))
    return Source(
        path.stem, _text(path.read_bytes(), str(path)), LANGUAGES.get(path.suffix.lower())
    )


def _text(content: bytes, origin: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"expected UTF-8 in {origin}, got {error}") from None


def _is_piped() -> bool:
    """Whether somebody gave standard input on purpose: a pipe, a file or a socket."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        raise CellshellError("expected output in base64, got something else") from None


def _status_of_code(done: Event) -> int:
    _remark(done)
    match done.data.get("status"):
        case "ok":
            return 0
        case "timeout":
            say("the run timed out")
            return TIMED_OUT
        case "interrupted":
            say("the run was interrupted")
            return INTERRUPTED
        case "died":
            end = done.data.get("exit") or {}
            say(f"the kernel died: {end.get('signal') or end.get('code')} ({end.get('reason')})")
    return 1


def _status_of_command(done: Event) -> int:
    _remark(done)
    code = done.data.get("exit_code")
    if isinstance(code, int):
        return code & 0xFF
    if done.data.get("timed_out"):
        say("the command timed out")
        return TIMED_OUT
    say("the command was cancelled")
    return INTERRUPTED


def _remark_loss(done: Event, shown: int) -> None:
    """A stream is bounded too, at far more than a result."""
    omitted = done.data.get("omitted")
    if isinstance(omitted, dict) and sum(omitted.values()) > shown:
        say(
            "part of the output was left out; write it to a file and fetch that with `cellshell cp`"
        )


def _remark(done: Event) -> None:
    for notice in done.data.get("notices") or ():
        say(str(notice.get("message")))
