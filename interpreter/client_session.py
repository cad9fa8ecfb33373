"""Sessions and sandboxes, from the client's side."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import RootModel

from interpreter.client_context import ContextCalls
from interpreter.client_files import FileCalls
from interpreter.client_notebooks import NotebookCalls
from interpreter.client_problems import (
    build,
    check,
    parse,
    parse_list,
    segment,
)
from interpreter.client_process import ProcessCalls
from interpreter.client_transport import Call, Transport
from interpreter.fields import VariableChanges
from interpreter.limit_models import Usage
from interpreter.models import (
    CreateSession,
    EnvironmentInfo,
    Port,
    SandboxEnv,
    SandboxInfo,
    SessionInfo,
)
from interpreter.network_log import KEPT, NetworkDecision


class Changes(RootModel[VariableChanges]):
    """Names to values; None unsets."""


class SessionCalls(ContextCalls, FileCalls, NotebookCalls, ProcessCalls):
    """What a session can do, and a sandbox through its `default` session."""

    def __init__(self, transport: Transport, sandbox: str, session: str) -> None:
        self._transport = transport
        self._sandbox_path = f"/v1/sandboxes/{segment('sandbox', sandbox)}"
        self._session_path = f"{self._sandbox_path}/sessions/{segment('session', session)}"

    async def get_environment(self) -> EnvironmentInfo:
        """The working directory and all exported variables."""
        answer = await self._transport.get(f"{self._session_path}/env")
        return parse(EnvironmentInfo, answer)


class AsyncSession(SessionCalls):
    """A shell, code contexts and files that share one environment."""

    def __init__(self, transport: Transport, info: SessionInfo) -> None:
        super().__init__(transport, info.sandbox, info.id)
        self.info = info
        """What was last heard of it; `refresh` asks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} in {self.info.sandbox}>"

    @property
    def id(self) -> str:
        return self.info.id

    async def refresh(self) -> SessionInfo:
        """Asks how it is, and keeps that in `info`."""
        self.info = parse(SessionInfo, await self._transport.get(self._session_path))
        return self.info

    async def set_env_vars(self, env: Mapping[str, str | None]) -> EnvironmentInfo:
        """Sets variables of this session; None unsets."""
        body = check(Changes, env)
        answer = await self._transport.send(Call("PATCH", f"{self._session_path}/env", body=body))
        return parse(EnvironmentInfo, answer)

    async def delete(self) -> None:
        """Ends the session and what runs in it; `default` comes back fresh."""
        await self._transport.delete(self._session_path)


class AsyncSandbox(SessionCalls):
    """One isolated computer. The methods of a session act on its `default` session."""

    def __init__(self, transport: Transport, info: SandboxInfo) -> None:
        super().__init__(transport, info.id, "default")
        self.info = info
        """What was last heard of it; `refresh` asks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def id(self) -> str:
        return self.info.id

    async def refresh(self) -> SandboxInfo:
        """Asks how it is, and keeps that in `info`."""
        self.info = parse(SandboxInfo, await self._transport.get(self._sandbox_path))
        return self.info

    async def create_session(
        self,
        id: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncSession:
        """Makes a session; its working directory is made inside `/workspace` if missing."""
        body = build(CreateSession, id=id, env=env, cwd=cwd)
        answer = await self._transport.post(f"{self._sandbox_path}/sessions", body)
        return AsyncSession(self._transport, parse(SessionInfo, answer))

    async def get_session(self, id: str = "default") -> AsyncSession:
        answer = await self._transport.get(self._path_of(id))
        return AsyncSession(self._transport, parse(SessionInfo, answer))

    async def list_sessions(self) -> list[AsyncSession]:
        answer = await self._transport.get(f"{self._sandbox_path}/sessions")
        return [AsyncSession(self._transport, info) for info in parse_list(SessionInfo, answer)]

    async def delete_session(self, id: str) -> None:
        """Ends a session and what runs in it; `default` comes back fresh."""
        await self._transport.delete(self._path_of(id))

    async def set_env_vars(self, env: Mapping[str, str | None]) -> dict[str, str]:
        """Sets variables of all sessions, present and future; None unsets."""
        body = check(Changes, env)
        answer = await self._transport.send(Call("PATCH", f"{self._sandbox_path}/env", body=body))
        return parse(SandboxEnv, answer).env

    async def network_log(self, after: int = 0, limit: int = KEPT) -> list[NetworkDecision]:
        """What the sandbox asked its way out for after number `after`, the oldest first."""
        params = {"after": after, "limit": limit}
        answer = await self._transport.get(f"{self._sandbox_path}/network/log", params)
        return parse_list(NetworkDecision, answer)

    async def list_ports(self) -> list[Port]:
        """The ports that something in the sandbox listens on, with the paths browsers take."""
        return parse_list(Port, await self._transport.get(f"{self._sandbox_path}/ports"))

    async def usage(self) -> Usage:
        """What the sandbox uses now, and its limits."""
        return parse(Usage, await self._transport.get(f"{self._sandbox_path}/usage"))

    async def pause(self) -> SandboxInfo:
        """Everything in the sandbox stops where it is; the next call lets it go on."""
        self.info = await self._command("pause")
        return self.info

    async def resume(self) -> SandboxInfo:
        """As any other call would."""
        self.info = await self._command("resume")
        return self.info

    async def destroy(self) -> None:
        """Ends everything in the sandbox and deletes its files."""
        await self._transport.delete(self._sandbox_path)

    async def _command(self, word: str) -> SandboxInfo:
        call = Call("POST", f"{self._sandbox_path}/{word}")
        return parse(SandboxInfo, await self._transport.send(call))

    def _path_of(self, id: str) -> str:
        return f"{self._sandbox_path}/sessions/{segment('session', id)}"
