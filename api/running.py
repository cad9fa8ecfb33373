"""Running: commands in the shell, code in kernels."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import Body, Query
from starlette.requests import Request
from starlette.responses import Response

from api.accepts import last_event, wants_events
from api.addresses import SESSION, TheSession, named
from api.answers import answer
from api.callers import CallerGone, unless_gone
from api.documentation import errors, events
from api.followers import following
from api.metrics import Metrics
from api.routes import noun
from api.streams import EventStream
from interpreter.errors import (
    AtCapacity,
    ContextDeleted,
    ContextNotFound,
    DiskFull,
    ExecutionForgotten,
    ExecutionMismatch,
    ExecutionOver,
    InvalidCwd,
    LanguageAndContext,
    LanguageUnavailable,
    LanguageUnknown,
    NotReady,
    QueueFull,
    SandboxDeleted,
    SandboxNotFound,
    SessionDeleted,
    SessionNotFound,
)
from interpreter.execution import Execution
from interpreter.models import CodeResult, Detached, Exec, ExecResult, RunCode

router = noun("running", SESSION)
FAILURES = (
    SandboxNotFound,
    SessionNotFound,
    InvalidCwd,
    ExecutionMismatch,
    ExecutionForgotten,
    SessionDeleted,
    SandboxDeleted,
    QueueFull,
    NotReady,
    AtCapacity,
    DiskFull,
)
ACCEPTED = {"description": "Accepted: `Location` leads to the execution.", "model": Detached}
Detach = Annotated[
    bool, Query(description="Answer 202 at once; the execution goes on without a caller.")
]


@router.post(
    "/exec",
    response_model=ExecResult,
    responses={
        200: events("`started`, `stdout` and `stderr` as they come, `done`; or `error`."),
        202: ACCEPTED,
        **errors(*FAILURES),
    },
    summary="Run a command",
)
async def exec(
    request: Request,
    session: TheSession,
    body: Annotated[
        Exec,
        Body(
            openapi_examples={
                "build": {"value": {"command": "npm ci && npm run build", "timeout": 600}},
                "once": {"value": {"command": "wc -l", "stdin": "a\nb\n", "env": {"LC_ALL": "C"}}},
            }
        ),
    ],
    detach: Detach = False,
) -> Response:
    """In the session's persistent bash. A non-zero exit is a result, not an error."""
    execution = await session.exec(body, kept=detach)
    return await _respond(request, execution, detach)


@router.post(
    "/code",
    response_model=CodeResult,
    responses={
        200: events(
            "`started`, `output`, `display_update`, `clear_output` as they come, `done` or `error`."
        ),
        202: ACCEPTED,
        **errors(
            *FAILURES,
            ContextNotFound,
            ContextDeleted,
            LanguageAndContext,
            LanguageUnknown,
            LanguageUnavailable,
        ),
    },
    summary="Run code",
)
async def run_code(
    request: Request,
    session: TheSession,
    body: Annotated[
        RunCode,
        Body(
            openapi_examples={
                "python": {"value": {"code": "import os\nos.getcwd()"}},
                "typescript": {
                    "value": {"code": "const n: number = 6 * 7\nn", "language": "typescript"}
                },
            }
        ),
    ],
    detach: Detach = False,
) -> Response:
    """In a context, by default the session's own of the language. An exception is a result."""
    execution = await session.run_code(body, kept=detach)
    return await _respond(request, execution, detach)


async def _respond(
    request: Request,
    execution: Execution,
    detach: bool,
) -> Response:
    if not execution.repeated:
        metrics: Metrics = request.app.state.metrics
        metrics.follow(execution)
    if detach:
        where = f"/v1/sandboxes/{named(request, 'sandbox')}/executions/{execution.id}"
        return answer(Detached(id=execution.id, state=execution.state), 202, {"Location": where})
    if wants_events(request):
        return _stream(request, execution)
    return await _wait(request, execution)


def _stream(request: Request, execution: Execution) -> Response:
    async def gone() -> None:
        await _give_up(execution)

    return EventStream(
        following(execution, last_event(request)),
        heartbeat=request.app.state.settings.heartbeat,
        gone=gone,
    )


async def _wait(request: Request, execution: Execution) -> Response:
    try:
        result = await unless_gone(request.receive, execution.result())
    except CallerGone:
        await _give_up(execution)
        raise
    return answer(result)


async def _give_up(execution: Execution) -> None:
    """The caller has gone: what has no id can never be asked for again."""
    if not execution.kept:
        with suppress(ExecutionOver):
            await execution.cancel()
