"""A service with a token, for programs that `make test-frontends` installs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from api.serving import serving
from interpreter import AsyncClient, AsyncSandbox
from interpreter.settings import Settings
from tests.frontends.driving import TOKEN


@pytest_asyncio.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), token=SecretStr(TOKEN))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(settings, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest_asyncio.fixture
async def demo(service: str) -> AsyncIterator[AsyncSandbox]:
    """A sandbox that an API user has, with a name in its Python context."""
    async with AsyncClient(service, TOKEN) as client:
        sandbox = await client.get_sandbox("demo")
        await sandbox.run_code("secret = 'made by the API'")
        yield sandbox
        for each in await client.list_sandboxes():
            await each.destroy()


@pytest_asyncio.fixture
async def http(service: str, demo: AsyncSandbox) -> AsyncIterator[httpx.AsyncClient]:
    """The Jupyter door."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=service, headers=headers, trust_env=False) as http:
        yield http
