"""What the parts of a path name: FastAPI dependencies that find it, or answer 404.

They read the path themselves: nested dependencies with a parameter each cost more than the rest
of a short command's way through the service.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import Scope

from interpreter.contexts import Context
from interpreter.errors import InvalidRequest, SandboxDeleted, SandboxNotFound
from interpreter.execution import Execution
from interpreter.fields import ID_PATTERN
from interpreter.interpreter import Interpreter
from interpreter.processes import Process
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from interpreter.settings import Settings

SANDBOX = "/v1/sandboxes/{sandbox}"
SESSION = SANDBOX + "/sessions/{session}"
NAMES = {
    "sandbox": "Id of the sandbox.",
    "session": "Id of the session; `default` is always there.",
    "context": "Id of the context; a language's default context is named after it.",
    "execution": "Id of the execution.",
    "process": "Id of the process.",
    "port": "A TCP port that something in the sandbox listens on.",
    "ticket": "The part of a link that opens its port, as `GET .../ports` lists it.",
    "path": "Path at the server, which gets the query too.",
}
ID = re.compile(ID_PATTERN.removesuffix("$"))


def named(connection: HTTPConnection, name: str) -> str:
    """The id in a path, which is one for sure."""
    value: str = connection.path_params[name]
    if ID.fullmatch(value):
        return value
    raise InvalidRequest(
        f"expected the id of a {name} in the path, such as 'user-123', got {value!r:.80}",
        errors=[{"detail": f"not a string that matches {ID_PATTERN}", "parameter": name}],
    )


async def find_settings(connection: HTTPConnection) -> Settings:
    settings: Settings = connection.app.state.settings
    return settings


async def find_interpreter(connection: HTTPConnection) -> Interpreter:
    interpreter: Interpreter = connection.app.state.interpreter
    return interpreter


async def find_sandbox(connection: HTTPConnection) -> Sandbox:
    """A paused one goes on, unless it is only looked at."""
    interpreter: Interpreter = connection.app.state.interpreter
    sandbox = interpreter.sandbox(named(connection, "sandbox"))
    if connection.scope.get("method") not in ("GET", "HEAD"):
        await sandbox.wake()
    return sandbox


def deleted_meanwhile(scope: Scope) -> SandboxDeleted | None:
    """Why a request failed whose sandbox was there as it began, and is no more."""
    id = scope.get("path_params", {}).get("sandbox")
    if id is None:
        return None
    try:
        scope["app"].state.interpreter.sandbox(id)
    except SandboxNotFound:
        return SandboxDeleted(f"sandbox {id!r} was deleted")
    return None


async def find_session(connection: HTTPConnection) -> Session:
    sandbox = await find_sandbox(connection)
    return sandbox.session(named(connection, "session"))


async def find_context(connection: HTTPConnection) -> Context:
    session = await find_session(connection)
    return session.context(named(connection, "context"))


async def find_execution(connection: HTTPConnection) -> Execution:
    sandbox = await find_sandbox(connection)
    return sandbox.executions.get(named(connection, "execution"))


async def find_process(connection: HTTPConnection) -> Process:
    sandbox = await find_sandbox(connection)
    return sandbox.processes.get(named(connection, "process"))


TheSettings = Annotated[Settings, Depends(find_settings)]
TheInterpreter = Annotated[Interpreter, Depends(find_interpreter)]
TheSandbox = Annotated[Sandbox, Depends(find_sandbox)]
TheSession = Annotated[Session, Depends(find_session)]
TheContext = Annotated[Context, Depends(find_context)]
TheExecution = Annotated[Execution, Depends(find_execution)]
TheProcess = Annotated[Process, Depends(find_process)]
