"""A sandbox of a service that has a port."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from api.serving import serving
from interpreter import AsyncClient, AsyncSandbox
from interpreter.settings import Settings


@pytest_asyncio.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(settings, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest_asyncio.fixture
async def sandbox(service: str) -> AsyncIterator[AsyncSandbox]:
    async with AsyncClient(service) as client:
        sandbox = await client.create_sandbox()
        yield sandbox
        await sandbox.destroy()
