"""Contexts: Jupyter kernels of a session."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import SESSION, TheContext, TheSandbox, TheSession, named
from api.answers import answer, no_content
from api.documentation import errors
from api.later import prepared
from api.routes import noun
from interpreter.errors import (
    AtCapacity,
    ContextDeleted,
    ContextExists,
    ContextNotFound,
    DiskFull,
    InvalidCwd,
    LanguageUnavailable,
    LanguageUnknown,
    NotReady,
    SandboxNotFound,
    SessionDeleted,
    SessionNotFound,
)
from interpreter.models import CodeAt, ContextInfo, CreateContext, Variable

router = noun("contexts", SESSION + "/contexts")
SESSION_MISSING = (SandboxNotFound, SessionNotFound)
MISSING = (*SESSION_MISSING, ContextNotFound)
Place = Annotated[
    CodeAt,
    Body(openapi_examples={"attribute": {"value": {"code": "import os\nos.pa", "cursor_pos": 15}}}),
]


@router.post(
    "",
    status_code=201,
    response_model=ContextInfo,
    responses=errors(
        *SESSION_MISSING,
        ContextExists,
        SessionDeleted,
        InvalidCwd,
        LanguageUnknown,
        LanguageUnavailable,
        NotReady,
        AtCapacity,
        DiskFull,
    ),
    summary="Create a context",
)
async def create_context(
    session: TheSession,
    body: Annotated[
        CreateContext,
        Body(
            default_factory=CreateContext,
            openapi_examples={"typescript": {"value": {"id": "ts-1", "language": "typescript"}}},
        ),
    ],
) -> Response:
    """Starts a kernel. Its own `cwd` and `env` stay private to it; the rest is shared."""
    context = await session.create_context(body)
    return answer(context.info(), 201)


@router.get(
    "",
    response_model=list[ContextInfo],
    responses=errors(*SESSION_MISSING),
    summary="List contexts",
)
async def list_contexts(session: TheSession) -> Response:
    """Oldest first."""
    return answer([context.info() for context in session.contexts()])


@router.get(
    "/{context}", response_model=ContextInfo, responses=errors(*MISSING), summary="Get a context"
)
async def get_context(context: TheContext) -> Response:
    """Its kernel and what that is doing."""
    return answer(context.info())


@router.delete(
    "/{context}", status_code=204, responses=errors(*MISSING), summary="Delete a context"
)
async def delete_context(request: Request, session: TheSession) -> Response:
    """At once: what runs in it ends. A session's default context comes back fresh."""
    await session.delete_context(named(request, "context"))
    return no_content()


@router.post(
    "/{context}/interrupt",
    status_code=202,
    responses=errors(*MISSING, NotReady),
    summary="Interrupt a context",
)
async def interrupt_context(context: TheContext) -> Response:
    """As Ctrl-C in a terminal; the run that it ends says so."""
    await context.interrupt()
    return answer({}, 202)


@router.post(
    "/{context}/restart",
    response_model=ContextInfo,
    responses=errors(*MISSING, ContextDeleted, NotReady),
    summary="Restart a context",
)
async def restart_context(context: TheContext) -> Response:
    """Its names are gone, the environment stays."""
    return answer(await context.restart())


@router.get(
    "/{context}/variables",
    response_model=list[Variable],
    responses=errors(*MISSING, ContextDeleted, NotReady),
    summary="List variables",
)
async def list_variables(context: TheContext) -> Response:
    """Without running user code; also while the kernel is busy, where it can."""
    return answer(await context.variables())


@router.get(
    "/{context}/notebook",
    response_model=dict[str, Any],
    responses=errors(*MISSING),
    summary="Get the notebook",
)
async def get_notebook(sandbox: TheSandbox, context: TheContext) -> Response:
    """What was run here and is still kept, as a notebook (nbformat 4.5); save it as `.ipynb`."""
    await prepared("notebooks.records")
    from notebooks.records import notebook_of

    notebook = await notebook_of(sandbox, context)
    headers = {"Content-Disposition": f'attachment; filename="{context.id}.ipynb"'}
    return answer(notebook, headers=headers)


@router.get(
    "/{context}/connection",
    response_model=dict[str, Any],
    responses=errors(*MISSING, ContextDeleted, NotReady),
    summary="Get a connection file",
)
async def get_connection(context: TheContext) -> Response:
    """For clients on the service's machine that speak ZeroMQ to the kernel: `jupyter console
    --existing FILE`. Queue and limits hold for those alone that come through the service."""
    kernel = await context.kernel()
    headers = {"Content-Disposition": f'attachment; filename="{context.id}.json"'}
    return answer(kernel.connection, headers=headers)


@router.post(
    "/{context}/complete",
    response_model=dict[str, Any],
    responses=errors(*MISSING, ContextDeleted, NotReady),
    summary="Complete code",
)
async def complete_code(context: TheContext, body: Place) -> Response:
    """Jupyter's `complete_reply`: matches and what they replace."""
    return answer(await context.complete(_within(body)))


@router.post(
    "/{context}/inspect",
    response_model=dict[str, Any],
    responses=errors(*MISSING, ContextDeleted, NotReady),
    summary="Inspect code",
)
async def inspect_code(context: TheContext, body: Place) -> Response:
    """Jupyter's `inspect_reply`: documentation of what the cursor is on."""
    return answer(await context.inspect(_within(body)))


def _within(body: CodeAt) -> CodeAt:
    return body.model_copy(update={"cursor_pos": min(body.cursor_pos, len(body.code))})
