"""Notebooks: what a session did, as one; and notebooks that are run in a session."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from api.accepts import wants_events
from api.addresses import SESSION, TheSandbox, TheSession
from api.answers import answer
from api.callers import unless_gone
from api.documentation import errors, events
from api.followers import closing, opened
from api.later import prepared
from api.routes import noun
from api.streams import EventStream
from interpreter.errors import (
    AtCapacity,
    CellshellError,
    ContextNotFound,
    DiskFull,
    FileNotFound,
    IsADirectory,
    NotAFile,
    NotReady,
    PermissionDenied,
    SandboxDeleted,
    SandboxNotFound,
    SessionDeleted,
    SessionNotFound,
)
from interpreter.notebook_models import NotebookResult, RunNotebook

router = noun("notebooks", SESSION)
MISSING = (SandboxNotFound, SessionNotFound)
FILES = (FileNotFound, IsADirectory, NotAFile, PermissionDenied)
FAILURES = (*MISSING, *FILES, ContextNotFound, SessionDeleted, SandboxDeleted)
PROGRESS = (
    "`started`; `cell_started`, `output` as it comes and `cell_done` of each cell; `done` or "
    "`error`."
)
EXAMPLE = {"path": "report.ipynb", "parameters": {"year": 2026}, "cell_timeout": 60}


@router.get(
    "/notebook",
    response_model=dict[str, Any],
    responses=errors(*MISSING),
    summary="Get the session's notebook",
)
async def get_session_notebook(sandbox: TheSandbox, session: TheSession) -> Response:
    """All that was done here and is still kept: cells of every context, commands as `%%bash`, files
    and variables in between."""
    await prepared("notebooks.records")
    from notebooks.records import notebook_of_session

    notebook = await notebook_of_session(sandbox, session)
    headers = {"Content-Disposition": f'attachment; filename="{session.id}.ipynb"'}
    return answer(notebook, headers=headers)


@router.post(
    "/notebooks/run",
    response_model=NotebookResult,
    responses={200: events(PROGRESS), **errors(*FAILURES, NotReady, AtCapacity, DiskFull)},
    summary="Run a notebook",
)
async def run_notebook(
    request: Request,
    session: TheSession,
    body: Annotated[RunNotebook, Body(openapi_examples={"report": {"value": EXAMPLE}})],
) -> Response:
    """Cell by cell, in the session's kernels and shell; answers it with its outputs. The tags
    `parameters`, `raises-exception` and `skip-execution` are honoured. A caller that goes away ends
    the run."""
    await prepared("notebooks.session_run")
    from notebooks.session_run import SessionRun, load

    run = SessionRun(session, body, await load(session, body))
    followed = await opened(run.events())
    if wants_events(request):
        return EventStream(followed, heartbeat=request.app.state.settings.heartbeat)
    return answer(await unless_gone(request.receive, _last(followed)))


async def _last(followed: Any) -> dict[str, Any]:
    data: dict[str, Any] = {}
    async with closing(followed) as happened:
        async for event in happened:
            data = event.data
    if "notebook" not in data:
        raise CellshellError("the notebook's run ended before its result came")
    return data
