"""Repositories, cloned inside the sandbox."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import SESSION, TheSession
from api.answers import answer
from api.callers import unless_gone
from api.documentation import errors
from api.routes import noun
from interpreter.errors import (
    DiskFull,
    FileExists,
    GitFailed,
    InvalidCwd,
    InvalidGitUrl,
    NotReady,
    PermissionDenied,
    SandboxNotFound,
    SessionDeleted,
    SessionNotFound,
)
from interpreter.models import Checkout, GitCheckout

router = noun("git", SESSION + "/git")


@router.post(
    "/checkout",
    response_model=Checkout,
    responses=errors(
        SandboxNotFound,
        SessionNotFound,
        SessionDeleted,
        InvalidGitUrl,
        GitFailed,
        InvalidCwd,
        FileExists,
        PermissionDenied,
        NotReady,
        DiskFull,
    ),
    summary="Clone a repository",
)
async def git_checkout(
    request: Request,
    session: TheSession,
    body: Annotated[
        GitCheckout,
        Body(
            openapi_examples={
                "branch": {
                    "value": {
                        "url": "https://github.com/octocat/Hello-World.git",
                        "branch": "master",
                        "directory": "hello",
                        "depth": 1,
                    }
                }
            }
        ),
    ],
) -> Response:
    """Git runs in the box, under its network policy. A caller that goes away ends it."""
    return answer(await unless_gone(request.receive, session.git_checkout(body)))
