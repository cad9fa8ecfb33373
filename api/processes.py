"""Processes: in the background, owned by the sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import Body, Query
from starlette.requests import Request
from starlette.responses import Response

from api.accepts import last_event, wants_events
from api.addresses import SANDBOX, SESSION, TheProcess, TheSandbox, TheSession, TheSettings
from api.answers import answer
from api.callers import unless_gone
from api.documentation import errors, events
from api.followers import closing
from api.routes import noun
from api.streams import EventStream
from interpreter.errors import (
    AtCapacity,
    DiskFull,
    InvalidCwd,
    InvalidRequest,
    NotReady,
    ProcessExists,
    ProcessExited,
    ProcessNotFound,
    SandboxDeleted,
    SandboxNotFound,
    SessionNotFound,
    StdinClosed,
    WaitTimeout,
)
from interpreter.events import Event
from interpreter.models import (
    Killed,
    Logs,
    ProcessInfo,
    Signal,
    StartProcess,
    Stdin,
    WaitFor,
    WaitResult,
)
from interpreter.processes import Process

router = noun("processes")
PROCESSES = SANDBOX + "/processes"
PROCESS = PROCESSES + "/{process}"
MISSING = (SandboxNotFound, ProcessNotFound)
Stream = Literal["stdout", "stderr"]


@router.post(
    f"{SESSION}/processes",
    status_code=201,
    response_model=ProcessInfo,
    responses=errors(
        SandboxNotFound,
        SessionNotFound,
        ProcessExists,
        SandboxDeleted,
        InvalidCwd,
        NotReady,
        AtCapacity,
        DiskFull,
    ),
    summary="Start a process",
)
async def start_process(
    sandbox: TheSandbox,
    session: TheSession,
    body: Annotated[
        StartProcess,
        Body(
            openapi_examples={
                "server": {"value": {"id": "web", "command": "python -m http.server 8080"}}
            }
        ),
    ],
) -> Response:
    """In the session's environment; it outlives the session."""
    process = await sandbox.processes.start(session, body)
    return answer(process.info(), 201)


@router.get(
    PROCESSES,
    response_model=list[ProcessInfo],
    responses=errors(SandboxNotFound),
    summary="List processes",
)
async def list_processes(sandbox: TheSandbox) -> Response:
    """Running and ended ones, oldest first."""
    return answer([process.info() for process in sandbox.processes.list()])


@router.delete(
    PROCESSES,
    response_model=Killed,
    responses=errors(SandboxNotFound),
    summary="Kill all processes",
)
async def kill_all_processes(sandbox: TheSandbox) -> Response:
    """With their trees: SIGTERM, 5 s, SIGKILL."""
    return answer(Killed(killed=await sandbox.processes.kill_all()))


@router.get(
    PROCESS, response_model=ProcessInfo, responses=errors(*MISSING), summary="Get a process"
)
async def get_process(process: TheProcess) -> Response:
    """Whether it runs, or how it ended."""
    return answer(process.info())


@router.delete(
    PROCESS, response_model=ProcessInfo, responses=errors(*MISSING), summary="Kill a process"
)
async def kill_process(process: TheProcess) -> Response:
    """With its tree: SIGTERM, 5 s, SIGKILL. One that has ended stays as it is."""
    return answer(await process.kill())


@router.post(
    f"{PROCESS}/signal",
    response_model=ProcessInfo,
    responses=errors(*MISSING, ProcessExited),
    summary="Signal a process",
)
async def signal_process(
    process: TheProcess,
    body: Annotated[Signal, Body(openapi_examples={"interrupt": {"value": {"signal": "SIGINT"}}})],
) -> Response:
    """By the signal's name."""
    await process.signal(body.signal)
    return answer(process.info())


@router.post(
    f"{PROCESS}/stdin",
    response_model=ProcessInfo,
    responses=errors(*MISSING, ProcessExited, StdinClosed),
    summary="Write to a process",
)
async def write_stdin(
    request: Request,
    process: TheProcess,
    body: Annotated[
        Stdin,
        Body(
            openapi_examples={
                "line": {"value": {"data": "yes\n"}},
                "end": {"value": {"close": True}},
            }
        ),
    ],
) -> Response:
    """Its standard input is an open pipe until it is closed."""
    if body.data is None and not body.close:
        raise InvalidRequest("expected `data` to write, or `close: true`, got neither")
    if body.data is not None:
        await unless_gone(request.receive, process.write(body.data.encode()))
    if body.close:
        await process.close_stdin()
    return answer(process.info())


@router.get(
    f"{PROCESS}/logs",
    response_model=Logs,
    responses={
        200: events("`stdout` and `stderr` from the start and as they come, then `exit`."),
        **errors(*MISSING),
    },
    summary="Read what a process wrote",
)
async def get_process_logs(
    request: Request,
    process: TheProcess,
    settings: TheSettings,
    stream: Annotated[Stream | None, Query(description="One of the two; by default both.")] = None,
    tail: Annotated[
        int | None, Query(ge=0, lt=2**31, description="The last lines only; not in event streams.")
    ] = None,
) -> Response:
    """So far; as an event stream, it goes on until the process has ended."""
    if wants_events(request):
        followed = _follow(process, stream, last_event(request))
        return EventStream(followed, heartbeat=settings.heartbeat)
    return answer(process.logs(stream, tail))


@router.post(
    f"{PROCESS}/wait",
    response_model=WaitResult,
    responses=errors(*MISSING, WaitTimeout, ProcessExited),
    summary="Wait for a process",
)
async def wait_for_process(
    request: Request,
    process: TheProcess,
    body: Annotated[
        WaitFor,
        Body(
            openapi_examples={
                "port": {"value": {"for": "port", "port": 8080, "path": "/", "status": 200}},
                "log": {
                    "value": {"for": "log", "pattern": "port (\\d+)", "regex": True, "timeout": 30}
                },
                "exit": {"value": {"for": "exit"}},
            }
        ),
    ],
) -> Response:
    """For its end, for a line it writes, or for a port that it listens on."""
    return answer(await unless_gone(request.receive, process.wait_for(body)))


async def _follow(
    process: Process, stream: Stream | None, after: int
) -> AsyncGenerator[Event, None]:
    async with closing(process.events(after)) as found:
        async for event in found:
            if event.terminal or stream in (None, event.name):
                yield event
