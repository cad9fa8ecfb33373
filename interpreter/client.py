"""The Python client: `AsyncClient`. `interpreter.sync` has the same, blocking."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from interpreter.client_local import LocalService
from interpreter.client_problems import build, parse, parse_list, segment
from interpreter.client_session import AsyncSandbox
from interpreter.client_transport import Call, Transport, open_http
from interpreter.models import (
    CreateSandbox,
    Health,
    Language,
    Limits,
    SandboxInfo,
)
from interpreter.settings import Settings

NetworkOption = Literal["none", "open"] | Mapping[Literal["allow"], list[str]]


class AsyncClient:
    """Talks to a Cellshell service.

        async with AsyncClient("http://127.0.0.1:8000") as client:
            sandbox = await client.get_sandbox("user-123")
            result = await sandbox.exec("uname -a")

    Connections go straight to the service, never through a proxy named by the environment; give a
    `transport` of httpx for another way.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport = Transport(open_http(base_url, token, transport))
        self._service: LocalService | None = None

    @classmethod
    def local(cls, settings: Settings | None = None) -> Self:
        """A client with a service of its own, in this process and without a port.

        It starts with `async with` and ends with it. Without settings its sandboxes end with it
        too; with settings they are kept in `settings.home`.
        """
        service = LocalService(settings)
        client = cls("http://localhost", service.token, transport=service.transport())
        client._service = service
        return client

    async def __aenter__(self) -> Self:
        if self._service is not None:
            await self._service.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections, and ends a local service."""
        try:
            if self._service is not None and self._service.ends_sandboxes:
                await self._destroy_all()
        finally:
            await self._transport.aclose()
            if self._service is not None:
                await self._service.stop()

    async def health(self) -> Health:
        return parse(Health, await self._transport.get("/health"))

    async def languages(self) -> list[Language]:
        return parse_list(Language, await self._transport.get("/v1/languages"))

    async def get_sandbox(
        self,
        id: str = "default",
        *,
        env: Mapping[str, str] | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        network: NetworkOption | None = None,
        idle_timeout: float | None = None,
        on_idle: Literal["pause", "destroy"] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSandbox:
        """The sandbox of that id, made if it is not there; the rest counts only then."""
        body = build(
            CreateSandbox,
            env=env,
            limits=limits,
            network=network,
            idle_timeout=idle_timeout,
            on_idle=on_idle,
            labels=labels,
        )
        call = Call("PUT", f"/v1/sandboxes/{segment('sandbox', id)}", body=body)
        answer = await self._transport.send(call)
        return AsyncSandbox(self._transport, parse(SandboxInfo, answer))

    async def create_sandbox(
        self,
        id: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        network: NetworkOption | None = None,
        idle_timeout: float | None = None,
        on_idle: Literal["pause", "destroy"] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSandbox:
        """A new sandbox; `SandboxExists` when the id is taken."""
        body = build(
            CreateSandbox,
            id=id,
            env=env,
            limits=limits,
            network=network,
            idle_timeout=idle_timeout,
            on_idle=on_idle,
            labels=labels,
        )
        answer = await self._transport.post("/v1/sandboxes", body)
        return AsyncSandbox(self._transport, parse(SandboxInfo, answer))

    async def find_sandbox(self, id: str) -> AsyncSandbox:
        """The sandbox of that id; `SandboxNotFound` when it is not there."""
        answer = await self._transport.get(f"/v1/sandboxes/{segment('sandbox', id)}")
        return AsyncSandbox(self._transport, parse(SandboxInfo, answer))

    async def list_sandboxes(self) -> list[AsyncSandbox]:
        answer = await self._transport.get("/v1/sandboxes")
        return [AsyncSandbox(self._transport, info) for info in parse_list(SandboxInfo, answer)]

    async def delete_sandbox(self, id: str) -> None:
        """Ends everything in a sandbox and deletes its files."""
        await self._transport.delete(f"/v1/sandboxes/{segment('sandbox', id)}")

    async def _destroy_all(self) -> None:
        for sandbox in await self.list_sandboxes():
            await sandbox.destroy()
