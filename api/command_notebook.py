"""`cellshell notebook run`, `cellshell export` and `cellshell replay`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand

from api.command_connection import (
    DEFAULT_URL,
    INTERRUPTED,
    Address,
    SandboxId,
    SessionId,
    Token,
    Url,
    finish,
    say,
    visible,
)
from api.command_output import OutputPrinter
from api.command_partial import Partial
from api.command_run import TIMED_OUT
from interpreter.client_notebooks import NotebookOptions
from interpreter.errors import CellshellError, InvalidRequest
from interpreter.events import Event
from interpreter.notebook_models import NotebookResult

PARAMETER = ("-p", "--parameter")
WORDS = {"True": True, "False": False, "None": None}
"""As papermill has them, beside JSON."""

File = Annotated[Path, typer.Argument(help="A notebook, `.ipynb`.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option(*PARAMETER, metavar="NAME VALUE", help="JSON, else a text; repeatable."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where the notebook with its outputs goes.")
]
GoOn = Annotated[bool, typer.Option("--go-on", help="After a cell that fails, with the next.")]
CellTimeout = Annotated[float | None, typer.Option(help="Seconds for each cell.")]
Whole = Annotated[float | None, typer.Option("--timeout", help="Seconds for all; status 124.")]
Target = Annotated[Path, typer.Argument(help="`.ipynb`, `.py`, `.md` or `.html`.")]
ContextId = Annotated[str | None, typer.Option("--context", help="That of one context alone.")]
Trust = Annotated[bool, typer.Option("--trust", help="Keep scripts that code has put out.")]


class WithPairs(TyperCommand):
    """Takes `-p NAME VALUE`, as papermill does, and `-p NAME=VALUE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _paired(args))


def run(
    file: File,
    parameter: Parameters = None,
    output: Output = None,
    go_on: GoOn = False,
    cell_timeout: CellTimeout = None,
    timeout: Whole = None,
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Run a notebook in a session, show its outputs as they come, or keep them with `-o`."""

    async def work() -> int:
        from notebooks.documents import parse_text

        notebook = parse_text(file.read_bytes())
        options: NotebookOptions = {
            "parameters": parameters(parameter or ()),
            "on_error": "continue" if go_on else "stop",
            "cell_timeout": cell_timeout,
            "timeout": timeout,
        }
        printer = None if output else OutputPrinter(Path(), file.stem)
        partial = Partial(notebook)
        where = Address(url, token, sandbox, session)
        try:
            return _status(await _run(where, notebook, options, printer, partial))
        finally:
            if output is not None and partial.begun:
                _write(output, json.dumps(partial.notebook, indent=1).encode() + b"\n")

    finish(work())


def export(
    target: Target,
    context: ContextId = None,
    trust: Trust = False,
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write what a session did as a notebook, a script, a document or a page."""

    async def work() -> None:
        from notebooks import export as forms

        forms.check(target.suffix)
        async with Address(url, token, sandbox, session).open() as where:
            if context is not None:
                notebook = await (await where.get_code_context(context)).notebook()
            else:
                notebook = await where.notebook()
        files = forms.export(notebook, target.suffix, target.stem, trusted=trust)
        for name, data in files.items():
            _write(target.parent / name, data)

    finish(work())


async def _run(
    address: Address,
    notebook: Any,
    options: NotebookOptions,
    printer: OutputPrinter | None,
    partial: Partial,
) -> NotebookResult:
    async with address.open() as session:
        stream = session.run_notebook_stream(notebook, **options)
        with progress() as bar:
            task = bar.add_task("starting", total=None)
            async with aclosing(stream) as events:
                async for event in events:
                    partial.follow(event)
                    if event.name == "done":
                        return NotebookResult.model_validate(event.data)
                    follow(bar, task, event)
                    if event.name == "output" and printer is not None:
                        printer.output(event.data["output"])
    raise CellshellError("expected the event `done` at the end of the run, got none")


def progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def follow(bar: Progress, task: Any, event: Event) -> None:
    match event.name:
        case "started":
            bar.update(task, total=event.data["cells"])
        case "cell_started":
            number = event.data["index"]
            bar.update(task, completed=number, description=f"cell {number + 1}")
        case "cell_done":
            bar.update(task, completed=event.data["index"] + 1)


def parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE`, the value as JSON, a word of Python's, or a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"expected -p NAME VALUE, got {pair!r:.80} alone")
        try:
            found[name] = WORDS[text] if text in WORDS else json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _paired(args: Sequence[str]) -> list[str]:
    rest, joined = list(args), []
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word == "--":
            return joined + rest
        if word in PARAMETER and rest and "=" not in rest[0] and len(rest) > 1:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _status(result: NotebookResult) -> int:
    for number in result.failed:
        cell = result.notebook["cells"][number]
        source = "".join(cell["source"]).strip().splitlines()
        say(f"cell {number + 1} failed: {visible(source[0] if source else '')[:80]}")
    match result.status:
        case "ok":
            return 0
        case "timeout":
            say("the time is over")
            return TIMED_OUT
        case "interrupted":
            return INTERRUPTED
    return 1


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    say(f"wrote {path}")
