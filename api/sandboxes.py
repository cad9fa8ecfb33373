"""Sandboxes: isolated computers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import TheInterpreter, TheSandbox, named
from api.answers import answer, no_content
from api.documentation import errors
from api.routes import noun
from interpreter.errors import (
    AtCapacity,
    DiskFull,
    InvalidRequest,
    LimitUnsupported,
    NetworkUnsupported,
    NotReady,
    SandboxExists,
    SandboxNotFound,
)
from interpreter.fields import VariableChanges
from interpreter.limit_models import Usage
from interpreter.models import CreateSandbox, SandboxEnv, SandboxInfo

router = noun("sandboxes", "/v1/sandboxes")
CREATION = (LimitUnsupported, NetworkUnsupported, AtCapacity, DiskFull, NotReady)
NewSandbox = Annotated[
    CreateSandbox,
    Body(
        default_factory=CreateSandbox,
        openapi_examples={
            "plain": {"value": {"id": "user-123"}},
            "limited": {
                "value": {
                    "env": {"LANG": "C.UTF-8"},
                    "limits": {"memory_bytes": 536870912, "pids": 200},
                    "network": {"allow": ["pypi.org", "*.pythonhosted.org"]},
                    "idle_timeout": 3600,
                }
            },
        },
    ),
]


@router.post(
    "",
    status_code=201,
    response_model=SandboxInfo,
    responses=errors(SandboxExists, *CREATION),
    summary="Create a sandbox",
)
async def create_sandbox(interpreter: TheInterpreter, body: NewSandbox) -> Response:
    """Without `id` it gets one. Every sandbox has the session `default`."""
    sandbox = await interpreter.create_sandbox(body)
    return answer(sandbox.info(), 201, {"Location": f"/v1/sandboxes/{sandbox.info().id}"})


@router.put(
    "/{sandbox}",
    response_model=SandboxInfo,
    responses={
        201: {"description": "Created", "model": SandboxInfo},
        **errors(*CREATION),
    },
    summary="Get or create a sandbox",
)
async def ensure_sandbox(
    request: Request, interpreter: TheInterpreter, body: NewSandbox
) -> Response:
    """201 and a new one, or 200 and the one that is there, whatever the body says."""
    sandbox = named(request, "sandbox")
    if body.id not in (None, sandbox):
        raise InvalidRequest(
            f"expected the id of the path, {sandbox!r}, or none, got {body.id!r}",
            errors=[{"detail": "differs from the path", "pointer": "#/id"}],
        )
    found, created = await interpreter.ensure_sandbox(sandbox, body)
    return answer(found.info(), 201 if created else 200)


@router.get("", response_model=list[SandboxInfo], responses=errors(), summary="List sandboxes")
async def list_sandboxes(interpreter: TheInterpreter) -> Response:
    """Oldest first."""
    return answer([sandbox.info() for sandbox in interpreter.sandboxes()])


@router.get(
    "/{sandbox}",
    response_model=SandboxInfo,
    responses=errors(SandboxNotFound),
    summary="Get a sandbox",
)
async def get_sandbox(sandbox: TheSandbox) -> Response:
    """What it is, and which sessions it has."""
    return answer(sandbox.info())


@router.get(
    "/{sandbox}/usage",
    response_model=Usage,
    responses=errors(SandboxNotFound),
    summary="Get the usage of a sandbox",
)
async def get_usage(sandbox: TheSandbox) -> Response:
    """Memory, processor time, processes, files: what it uses now, and its limits."""
    return answer(await sandbox.usage())


@router.post(
    "/{sandbox}/pause",
    response_model=SandboxInfo,
    responses=errors(SandboxNotFound, NotReady),
    summary="Pause a sandbox",
)
async def pause_sandbox(request: Request, interpreter: TheInterpreter) -> Response:
    """Everything in it stops where it is, and takes no processor time, until something is asked of
    the sandbox. What only looks at records does not wake it. Time-outs go on."""
    sandbox = interpreter.sandbox(named(request, "sandbox"))
    await sandbox.pause()
    return answer(sandbox.info())


@router.post(
    "/{sandbox}/resume",
    response_model=SandboxInfo,
    responses=errors(SandboxNotFound, NotReady),
    summary="Resume a sandbox",
)
async def resume_sandbox(sandbox: TheSandbox) -> Response:
    """As any other call would."""
    return answer(sandbox.info())


@router.delete(
    "/{sandbox}", status_code=204, responses=errors(SandboxNotFound), summary="Delete a sandbox"
)
async def delete_sandbox(request: Request, interpreter: TheInterpreter) -> Response:
    """Everything in it ends, and its files and records are gone."""
    await interpreter.delete_sandbox(named(request, "sandbox"))
    return no_content()


@router.patch(
    "/{sandbox}/env",
    response_model=SandboxEnv,
    responses=errors(SandboxNotFound, DiskFull),
    summary="Set variables of a sandbox",
)
async def set_sandbox_env(
    sandbox: TheSandbox,
    body: Annotated[
        VariableChanges,
        Body(
            default_factory=dict,
            description="Names to values; null unsets.",
            openapi_examples={"one": {"value": {"API_URL": "https://example.org", "OLD": None}}},
        ),
    ],
) -> Response:
    """They act on all its sessions; what a session has set or unset itself wins."""
    return answer({"env": await sandbox.set_env(body)})
