"""Code contexts, from the client's side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Unpack

from interpreter.client_events import Callback, OutputCallback
from interpreter.client_problems import build, parse, parse_list, parse_object, segment
from interpreter.client_running import CodeOptions, RunningCalls
from interpreter.errors import ContextNotFound
from interpreter.events import Event
from interpreter.models import CodeAt, CodeResult, ContextInfo, CreateContext, Variable


class AsyncContext:
    """A code context: one kernel of a session, with its names."""

    def __init__(self, calls: ContextCalls, info: ContextInfo) -> None:
        self._calls = calls
        self._transport = calls._transport
        self._path = calls._context_path(info.id)
        self.info = info
        """What was last heard of it; `refresh` asks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.language}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def language(self) -> str:
        return self.info.language

    async def refresh(self) -> ContextInfo:
        """Asks how it is, and keeps that in `info`."""
        self.info = parse(ContextInfo, await self._transport.get(self._path))
        return self.info

    async def run_code(
        self,
        code: str,
        *,
        on_output: OutputCallback | None = None,
        on_stdout: Callback | None = None,
        on_stderr: Callback | None = None,
        **options: Unpack[CodeOptions],
    ) -> CodeResult:
        """Runs code in this context."""
        options["context"] = self.id
        return await self._calls.run_code(
            code, on_output=on_output, on_stdout=on_stdout, on_stderr=on_stderr, **options
        )

    def run_code_stream(
        self, code: str, **options: Unpack[CodeOptions]
    ) -> AsyncGenerator[Event, None]:
        """Runs code in this context: events as they come."""
        options["context"] = self.id
        return self._calls.run_code_stream(code, **options)

    async def interrupt(self) -> None:
        """Interrupts what runs, as Ctrl-C would; what is queued goes on."""
        await self._transport.post(f"{self._path}/interrupt")

    async def restart(self) -> ContextInfo:
        """Starts the kernel anew: its names are gone, the environment stays."""
        self.info = parse(ContextInfo, await self._transport.post(f"{self._path}/restart"))
        return self.info

    async def variables(self) -> list[Variable]:
        """The user's names and what they hold, without running user code."""
        return parse_list(Variable, await self._transport.get(f"{self._path}/variables"))

    async def complete(self, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """Jupyter's `complete_reply`; the cursor is at the end unless told."""
        return await self._ask("complete", code, cursor_pos)

    async def inspect(self, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
        """Jupyter's `inspect_reply`; the cursor is at the end unless told."""
        return await self._ask("inspect", code, cursor_pos)

    async def notebook(self) -> dict[str, Any]:
        """Everything run here so far, as a valid notebook."""
        return parse_object(await self._transport.get(f"{self._path}/notebook"))

    async def connection(self) -> dict[str, Any]:
        """What a Jupyter connection file holds, for a client on the service's machine."""
        return parse_object(await self._transport.get(f"{self._path}/connection"))

    async def kernel_id(self) -> str:
        """By which Jupyter frontends know it, at the same address."""
        return await self._calls.kernel_id(self.id)

    async def delete(self) -> None:
        await self._transport.delete(self._path)

    async def _ask(self, verb: str, code: str, cursor_pos: int | None) -> dict[str, Any]:
        body = build(CodeAt, code=code, cursor_pos=len(code) if cursor_pos is None else cursor_pos)
        return parse_object(await self._transport.post(f"{self._path}/{verb}", body))


class ContextCalls(RunningCalls):
    """The calls about contexts that a session and a sandbox share."""

    async def create_code_context(
        self,
        language: str = "python",
        *,
        id: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> AsyncContext:
        """Starts a kernel of its own; `cwd` and `env` given here stay private to it."""
        body = build(CreateContext, language=language, id=id, cwd=cwd, env=env)
        answer = await self._transport.post(f"{self._session_path}/contexts", body)
        return AsyncContext(self, parse(ContextInfo, answer))

    async def list_code_contexts(self) -> list[AsyncContext]:
        answer = await self._transport.get(f"{self._session_path}/contexts")
        return [AsyncContext(self, info) for info in parse_list(ContextInfo, answer)]

    async def get_code_context(self, id: str) -> AsyncContext:
        answer = await self._transport.get(self._context_path(id))
        return AsyncContext(self, parse(ContextInfo, answer))

    async def delete_code_context(self, id: str) -> None:
        """Ends a context and what runs in it; a default one comes back fresh when used."""
        await self._transport.delete(self._context_path(id))

    async def kernel_id(self, context: str) -> str:
        """By which Jupyter frontends know a context; `$` is the session's shell."""
        _, _, sandbox, _, session = self._session_path.strip("/").split("/")[-5:]
        found = (await self._transport.get("/api/sessions")).json()
        for model in found:
            if model["path"] == f"{sandbox}/{session}/{context}":
                return str(model["kernel"]["id"])
        raise ContextNotFound(f"session {session!r} has no context {context!r}")

    def _context_path(self, id: str) -> str:
        return f"{self._session_path}/contexts/{segment('context', id)}"
