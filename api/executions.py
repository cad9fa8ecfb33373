"""Executions: what ran, or runs, by id."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from api.accepts import last_event
from api.addresses import SANDBOX, TheExecution, TheSettings
from api.answers import answer, no_content
from api.documentation import errors, events
from api.followers import following
from api.routes import noun
from api.streams import EventStream
from interpreter.errors import (
    ContextDeleted,
    DiskFull,
    ExecutionForgotten,
    ExecutionNotFound,
    ExecutionOver,
    NotReady,
    SandboxDeleted,
    SandboxNotFound,
    SessionDeleted,
)
from interpreter.models import CodeResult, ExecResult

router = noun("executions", SANDBOX + "/executions")
MISSING = (SandboxNotFound, ExecutionNotFound, ExecutionForgotten)
ENDINGS = (SandboxDeleted, SessionDeleted, ContextDeleted, NotReady, DiskFull)


@router.get(
    "/{execution}",
    response_model=ExecResult | CodeResult,
    responses=errors(*MISSING, *ENDINGS),
    summary="Get an execution",
)
async def get_execution(execution: TheExecution) -> Response:
    """The result so far, with `state`; or the error that ended it."""
    return answer(execution.snapshot())


@router.get(
    "/{execution}/events",
    status_code=200,
    response_class=EventStream,
    responses={
        200: events("The events of `exec` or `code`; each has a number as its id."),
        **errors(*MISSING),
    },
    summary="Follow an execution",
)
async def follow_execution(
    request: Request,
    execution: TheExecution,
    settings: TheSettings,
    after: Annotated[
        int, Query(ge=0, lt=10**18, description="Start after this event; `Last-Event-ID` wins.")
    ] = 0,
) -> Response:
    """From the start, or after an event, until the terminal event: `done` or `error`."""
    return EventStream(
        following(execution, last_event(request, after)),
        heartbeat=settings.heartbeat,
    )


@router.delete(
    "/{execution}",
    status_code=204,
    responses=errors(*MISSING, ExecutionOver),
    summary="Cancel an execution",
)
async def cancel_execution(execution: TheExecution) -> Response:
    """Queued or running. Whoever waits for it gets what there is."""
    await execution.cancel()
    return no_content()
