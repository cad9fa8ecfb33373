"""Sessions: a shell, its contexts, and the environment they share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import SANDBOX, SESSION, TheSandbox, TheSession, named
from api.answers import answer, no_content
from api.documentation import errors
from api.routes import noun
from interpreter.errors import (
    DiskFull,
    InvalidCwd,
    NotReady,
    SandboxDeleted,
    SandboxNotFound,
    SessionDeleted,
    SessionExists,
    SessionNotFound,
)
from interpreter.fields import VariableChanges
from interpreter.models import CreateSession, EnvironmentInfo, SessionInfo

router = noun("sessions")
MISSING = (SandboxNotFound, SessionNotFound)


@router.post(
    f"{SANDBOX}/sessions",
    status_code=201,
    response_model=SessionInfo,
    responses=errors(
        SandboxNotFound, SessionExists, SandboxDeleted, InvalidCwd, NotReady, DiskFull
    ),
    summary="Create a session",
)
async def create_session(
    sandbox: TheSandbox,
    body: Annotated[
        CreateSession,
        Body(
            default_factory=CreateSession,
            openapi_examples={
                "production": {
                    "value": {
                        "id": "prod",
                        "env": {"NODE_ENV": "production"},
                        "cwd": "/workspace/prod",
                    }
                }
            },
        ),
    ],
) -> Response:
    """A missing `cwd` is created inside `/workspace`; elsewhere it must exist."""
    session = await sandbox.create_session(body)
    return answer(session.info(), 201)


@router.get(
    f"{SANDBOX}/sessions",
    response_model=list[SessionInfo],
    responses=errors(SandboxNotFound),
    summary="List sessions",
)
async def list_sessions(sandbox: TheSandbox) -> Response:
    """Oldest first."""
    return answer([session.info() for session in sandbox.sessions()])


@router.get(
    SESSION, response_model=SessionInfo, responses=errors(*MISSING), summary="Get a session"
)
async def get_session(session: TheSession) -> Response:
    """Its working directory and its contexts."""
    return answer(session.info())


@router.delete(SESSION, status_code=204, responses=errors(*MISSING), summary="Delete a session")
async def delete_session(request: Request, sandbox: TheSandbox) -> Response:
    """At once: what runs in it ends. `default` comes back fresh."""
    await sandbox.delete_session(named(request, "session"))
    return no_content()


@router.get(
    f"{SESSION}/env",
    response_model=EnvironmentInfo,
    responses=errors(*MISSING),
    summary="Get a session's environment",
)
async def get_session_env(session: TheSession) -> Response:
    """Working directory and all exported variables."""
    return answer(session.environment_info())


@router.patch(
    f"{SESSION}/env",
    response_model=EnvironmentInfo,
    responses=errors(*MISSING, SessionDeleted, DiskFull),
    summary="Set variables of a session",
)
async def set_session_env(
    session: TheSession,
    body: Annotated[
        VariableChanges,
        Body(
            default_factory=dict,
            description="Names to values; null unsets.",
            openapi_examples={"one": {"value": {"API_URL": "https://example.org", "OLD": None}}},
        ),
    ],
) -> Response:
    """Shell, contexts, processes and terminals see them at their next step."""
    return answer(await session.set_env(body))
