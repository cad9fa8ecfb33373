"""The records of executions, read into a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from nbformat import NotebookNode

from interpreter.contexts import Context
from interpreter.errors import CellshellError, ExecutionForgotten
from interpreter.execution import Execution
from interpreter.executions import Executions
from interpreter.frontend_models import FrontendExec, FrontendRun
from interpreter.models import ExecResult
from interpreter.sessions import Session
from kernels.specs import PYTHON, KernelLanguage
from notebooks.history import History, Kernel, Outcome, Run

BASH = "%%bash"
UNREADABLE = {"stdout": "[bytes that were asked for as base64]", "stderr": ""}


async def notebook_of(context: Context, executions: Executions) -> NotebookNode:
    """Everything kept of what was run in a context, since it was created, in order."""
    found = executions.of_context(context.session, context.id)
    return await _notebook(context.language, context.created_at, found)


async def notebook_of_session(session: Session, executions: Executions) -> NotebookNode:
    """The same of all contexts and of the shell, whose commands are cells for `%%bash`."""
    return await _notebook(PYTHON, session.created_at, executions.of_session(session.id))


async def _notebook(
    language: KernelLanguage, since: str, executions: Iterable[Execution]
) -> NotebookNode:
    history = History(Kernel(language.kernel, language.display_name, language.name))
    for execution in executions:
        if execution.origin.begun_at < since:
            continue  # of an earlier one with this name
        run = await _read(execution)
        if run is not None:
            history.add(run)
    return await asyncio.to_thread(history.notebook)


async def _read(execution: Execution) -> Run | None:
    """None: it is not for the history, or its records have gone meanwhile."""
    with suppress(ExecutionForgotten, FileNotFoundError):
        if execution.state == "done":
            # It does not change any more, and may be long to read.
            return await asyncio.to_thread(_run, execution)
        return _run(execution)
    return None


def _run(execution: Execution) -> Run | None:
    request = execution.request
    if execution.kind == "exec":
        command = FrontendExec.model_validate(request)
        if command.silent:
            return None
        source = f"{BASH}\n{command.command}"
        outcome = _outcome(execution)
        if command.encoding == "base64" and isinstance(outcome, ExecResult):
            outcome = outcome.model_copy(update=UNREADABLE)
        return Run(execution.id, source, outcome, execution.ended_at)
    code = FrontendRun.model_validate(request)
    if code.silent:
        return None
    return Run(execution.id, code.code, _outcome(execution), execution.ended_at)


def _outcome(execution: Execution) -> Outcome:
    try:
        return execution.snapshot()
    except ExecutionForgotten:
        raise
    except CellshellError as error:
        return error
