"""The records of a session, read into a notebook."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any

from nbformat import NotebookNode

from interpreter.contexts import Context
from interpreter.deeds import Deed
from interpreter.errors import CellshellError, ExecutionForgotten
from interpreter.execution import Execution
from interpreter.frontend_models import FrontendExec, FrontendRun
from interpreter.models import ExecResult
from interpreter.recording import STREAMS
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from kernels.specs import PYTHON, KernelLanguage
from notebooks.cells import Outcome, Run
from notebooks.history import History, Kernel

BASH = "%%bash"
NO_TEXT = "[bytes that are no text]"
MOST_LINES = 50
"""Of what was done to files between two runs."""


async def notebook_of(sandbox: Sandbox, context: Context) -> NotebookNode:
    """Everything kept of what was run in a context, since it was created, in order."""
    found = sandbox.executions.of_context(context.session, context.id)
    return await _notebook(sandbox, context.language, context.created_at, found, ())


async def notebook_of_session(sandbox: Sandbox, session: Session) -> NotebookNode:
    """The same of all contexts and of the shell, whose commands are cells for `%%bash`; what was
    done to files and variables is told between."""
    found = sandbox.executions.of_session(session.id)
    return await _notebook(sandbox, PYTHON, session.created_at, found, session.deeds)


async def _notebook(
    sandbox: Sandbox,
    language: KernelLanguage,
    since: str,
    executions: Iterable[Execution],
    deeds: Iterable[Deed],
) -> NotebookNode:
    history = History(Kernel(language.kernel, language.display_name, language.name))
    # Of an earlier one with this name nothing is told.
    items: list[Execution | Deed] = [*executions, *deeds]
    items = sorted((each for each in items if _at(each) >= since), key=_at)
    for is_deed, group in groupby(items, lambda each: isinstance(each, Deed)):
        if is_deed:
            _remark(history, [each for each in group if isinstance(each, Deed)])
            continue
        for execution in group:
            if isinstance(execution, Execution) and (run := await _read(sandbox.id, execution)):
                history.add(run)
    return await asyncio.to_thread(history.notebook)


def _at(item: Execution | Deed) -> str:
    return item.at if isinstance(item, Deed) else item.origin.begun_at


def _remark(history: History, deeds: list[Deed]) -> None:
    lines = list(_lines(deeds))
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"- and {len(lines) - MOST_LINES} more"]
    told = [{"verb": deed.verb, "at": deed.at, **deed.facts} for deed in deeds[:MOST_LINES]]
    history.remark(f"/{deeds[0].at}", "\n".join(lines), kind="deeds", deeds=told)


def _lines(deeds: Iterable[Deed]) -> Iterator[str]:
    for deed in deeds:
        facts = deed.facts
        path, to = _code(facts.get("path")), _code(facts.get("destination"))
        match deed.verb:
            case "write" | "append":
                size = f"{facts.get('size', 0):,} bytes"
                yield f"- {'wrote' if deed.verb == 'write' else 'appended to'} {path} ({size})"
            case "move" | "copy":
                yield f"- {'moved' if deed.verb == 'move' else 'copied'} {path} to {to}"
            case "set_env":
                yield f"- set {', '.join(map(_code, facts.get('names', ())))}"
            case "checkout":
                yield f"- checked out a repository to {path}, commit {_code(facts.get('commit'))}"
            case "extract":
                yield f"- extracted an archive to {path}"
            case "mkdir":
                yield f"- made the directory {path}"
            case _:
                yield f"- deleted {path}"


def _code(text: object) -> str:
    """As code in Markdown, whatever is in it."""
    shown = " ".join(str(text).split("\n"))
    fence = "``" if "`" in shown else "`"
    return f"{fence} {shown} {fence}" if fence == "``" else f"`{shown}`"


async def _read(sandbox: str, execution: Execution) -> Run | None:
    """None: it is not for the history, or its records have gone meanwhile."""
    with suppress(ExecutionForgotten, FileNotFoundError):
        if execution.state == "done":
            # It does not change any more, and may be long to read.
            return await asyncio.to_thread(_run, sandbox, execution)
        return _run(sandbox, execution)
    return None


def _run(sandbox: str, execution: Execution) -> Run | None:
    kind = FrontendExec if execution.kind == "exec" else FrontendRun
    request = kind.model_validate(execution.request)
    if request.silent:
        return None
    outcome = _outcome(execution)
    if isinstance(request, FrontendRun):
        source = request.code
    else:
        source = f"{BASH}\n{request.command}"
        if request.encoding == "base64" and isinstance(outcome, ExecResult):
            texts: dict[str, str] = {name: _text(getattr(outcome, name)) for name in STREAMS}
            outcome = outcome.model_copy(update=texts)
    address = f"/v1/sandboxes/{sandbox}/executions/{execution.id}"
    asked = _asked(request)
    return Run(execution.id, source, outcome, execution.ended_at, address, asked)


def _asked(request: FrontendExec | FrontendRun) -> dict[str, Any]:
    """What held for this run alone; of variables and input, that there were any."""
    told: dict[str, Any] = {"cwd": request.cwd} if request.cwd else {}
    if request.env:
        told["env"] = sorted(request.env)
    if isinstance(request, FrontendExec) and request.stdin:
        told["stdin"] = len(request.stdin)
    return told


def _text(encoded: str) -> str:
    try:
        return b64decode(encoded).decode()
    except ValueError:
        return NO_TEXT


def _outcome(execution: Execution) -> Outcome:
    try:
        return execution.snapshot()
    except ExecutionForgotten:
        raise
    except CellshellError as error:
        return error
