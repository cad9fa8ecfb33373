"""Short ways to run something in a session and have its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from interpreter.models import CodeResult, Exec, ExecResult, RunCode
from interpreter.sessions import Session

Shell = Callable[..., Awaitable[ExecResult]]
Python = Callable[..., Awaitable[CodeResult]]


def shell_of(session: Session) -> Shell:
    async def run(command: str, **options: Any) -> ExecResult:
        execution = await session.exec(Exec(command=command, **options))
        result = await execution.result()
        assert isinstance(result, ExecResult)
        return result

    return run


def python_of(session: Session) -> Python:
    async def run(code: str, **options: Any) -> CodeResult:
        execution = await session.run_code(RunCode(code=code, **options))
        result = await execution.result()
        assert isinstance(result, CodeResult)
        return result

    return run
