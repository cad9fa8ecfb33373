"""Commands and code, from the client's side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal, Protocol, TypedDict, TypeVar, Unpack

import httpx
from pydantic import BaseModel

from interpreter.client_events import Callback, OutputCallback, read_result, tell
from interpreter.client_problems import build, parse, segment, unexpected
from interpreter.client_transport import Call, Transport
from interpreter.errors import CellshellError
from interpreter.events import Event
from interpreter.models import CodeResult, Detached, Exec, ExecResult, RunCode

M = TypeVar("M", bound=BaseModel)
LAST = frozenset({"done"})


class HasId(Protocol):
    """A context, whichever client made it."""

    @property
    def id(self) -> str: ...


class RunOptions(TypedDict, total=False):
    """What both may be given."""

    cwd: str | None
    env: Mapping[str, str | None] | None
    timeout: float | None
    max_output_bytes: int | None
    keep_output: bool
    id: str | None


class ExecOptions(RunOptions, total=False):
    """What a command may be given; see `interpreter.models.Exec`."""

    stdin: str | None
    encoding: Literal["utf-8", "base64"]


class CodeOptions(RunOptions, total=False):
    """What a run of code may be given; see `interpreter.models.RunCode`."""

    language: str | None
    context: str | HasId | None


class RunningCalls:
    """The calls about running that a session, a sandbox and a context share.

    When the caller goes away (a cancelled task, an abandoned stream, a callback that raises), what
    it ran is cancelled; with an `id` it goes on, and the same call can be made again to have its
    result: a connection lost meanwhile is taken up where it was.
    """

    _transport: Transport
    _sandbox_path: str
    _session_path: str

    async def exec(
        self,
        command: str,
        *,
        on_stdout: Callback | None = None,
        on_stderr: Callback | None = None,
        **options: Unpack[ExecOptions],
    ) -> ExecResult:
        """Runs a command in the session's shell; the callbacks get its output as it comes."""
        if on_stdout is None and on_stderr is None:
            return parse(ExecResult, await self._run("exec", self._exec_body(command, options)))
        callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        last: Event | None = None
        async with aclosing(self.exec_stream(command, **options)) as events:
            async for last in events:
                await tell(callbacks.get(last.name), last.text)
        return await self._result(last, ExecResult)

    def exec_stream(
        self, command: str, **options: Unpack[ExecOptions]
    ) -> AsyncGenerator[Event, None]:
        """Runs a command: events `started`, `stdout`, `stderr` as they come, `done`."""
        return self._stream("exec", self._exec_body(command, options))

    async def exec_detached(self, command: str, **options: Unpack[ExecOptions]) -> Detached:
        """Starts a command and returns at once; its `id` leads to the result."""
        return await self._detach("exec", self._exec_body(command, options))

    async def run_code(
        self,
        code: str,
        *,
        on_output: OutputCallback | None = None,
        on_stdout: Callback | None = None,
        on_stderr: Callback | None = None,
        **options: Unpack[CodeOptions],
    ) -> CodeResult:
        """Runs code in a context, by default the session's own of the language."""
        if on_output is None and on_stdout is None and on_stderr is None:
            return parse(CodeResult, await self._run("code", self._code_body(code, options)))
        callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        last: Event | None = None
        async with aclosing(self.run_code_stream(code, **options)) as events:
            async for last in events:
                output = last.data.get("output")
                if isinstance(output, dict):
                    await tell(on_output, output)
                    await tell(callbacks.get(str(output.get("name"))), last.text)
        return await self._result(last, CodeResult)

    def run_code_stream(
        self, code: str, **options: Unpack[CodeOptions]
    ) -> AsyncGenerator[Event, None]:
        """Runs code: events `started`, `output`, `display_update`, `clear_output`, `done`."""
        return self._stream("code", self._code_body(code, options))

    async def run_code_detached(self, code: str, **options: Unpack[CodeOptions]) -> Detached:
        """Starts a run of code and returns at once; its `id` leads to the result."""
        return await self._detach("code", self._code_body(code, options))

    async def get_execution(self, id: str) -> ExecResult | CodeResult:
        """What an execution has come to so far, with its `state`."""
        call = Call("GET", self._execution_path(id))
        answer = await self._transport.send(call, repeatable=True)
        try:
            return read_result(answer.json())
        except (ValueError, TypeError):
            raise unexpected(answer) from None

    def stream_execution(self, id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events of an execution from the start, or after one, until `done`."""
        path = f"{self._execution_path(id)}/events"
        call = Call("GET", path, {"after": after or None})
        return self._transport.events(call, last=LAST, resume=path)

    async def cancel_execution(self, id: str) -> None:
        """Cancels an execution, queued or running; `ExecutionOver` when it has ended."""
        await self._transport.delete(self._execution_path(id))

    def _exec_body(self, command: str, options: ExecOptions) -> Exec:
        return build(Exec, command=command, **options)

    def _code_body(self, code: str, options: CodeOptions) -> RunCode:
        fields = dict(options)
        context = options.get("context")
        if context is not None and not isinstance(context, str):
            fields["context"] = context.id
        return build(RunCode, code=code, **fields)

    async def _run(self, verb: str, body: Exec | RunCode) -> httpx.Response:
        call = Call("POST", f"{self._session_path}/{verb}", body=body)
        return await self._transport.send(call, repeatable=body.id is not None)

    def _stream(self, verb: str, body: Exec | RunCode) -> AsyncGenerator[Event, None]:
        call = Call("POST", f"{self._session_path}/{verb}", body=body)
        resume = f"{self._execution_path(body.id)}/events" if body.id is not None else None
        return self._transport.events(call, last=LAST, resume=resume)

    async def _detach(self, verb: str, body: Exec | RunCode) -> Detached:
        call = Call("POST", f"{self._session_path}/{verb}", {"detach": True}, body)
        answer = await self._transport.send(call, repeatable=body.id is not None)
        return parse(Detached, answer)

    async def _result(self, last: Event | None, kind: type[M]) -> M:
        # The events are not the result: the middle of a long output, updated displays and cleared
        # outputs are put right by the service alone.
        result = await self.get_execution(str(last.data.get("id"))) if last else None
        if not isinstance(result, kind):
            raise CellshellError(
                f"expected the result of the execution, a {kind.__name__}, got "
                f"{type(result).__name__}"
            )
        return result

    def _execution_path(self, id: str) -> str:
        return f"{self._sandbox_path}/executions/{segment('execution', id)}"
