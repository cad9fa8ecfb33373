"""The records of a context's executions, read into a notebook."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nbformat import NotebookNode

from interpreter.contexts import Context
from interpreter.errors import CellshellError, ExecutionForgotten
from interpreter.execution import Execution
from interpreter.executions import Executions
from interpreter.frontend_models import FrontendRun
from interpreter.models import CodeResult
from notebooks.history import History, Kernel, Run


async def notebook_of(context: Context, executions: Executions) -> NotebookNode:
    """Everything kept of what was run in a context, since it was created, in order."""
    language = context.language
    history = History(Kernel(language.kernel, language.display_name, language.name))
    for execution in executions.of_context(context.session, context.id):
        if execution.origin.begun_at < context.created_at:
            continue  # of an earlier context with this name
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
    request = FrontendRun.model_validate(execution.request)
    return None if request.silent else Run(execution.id, request.code, _outcome(execution))


def _outcome(execution: Execution) -> CodeResult | CellshellError:
    try:
        result = execution.snapshot()
    except ExecutionForgotten:
        raise
    except CellshellError as error:
        return error
    assert isinstance(result, CodeResult)
    return result
