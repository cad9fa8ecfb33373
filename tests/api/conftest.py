"""A real service on a real port, shared by the tests of the doors."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from api.serving import serving
from interpreter.settings import Settings


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), heartbeat=0.2)


@pytest_asyncio.fixture(scope="session")
async def base_url(settings: Settings) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(settings, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest_asyncio.fixture(scope="session")
async def http(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(scope="module")
async def sandbox(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """The address of a sandbox that the tests of a module share."""
    address = f"/v1/sandboxes/test-{secrets.token_hex(4)}"
    assert (await http.put(address)).status_code == 201
    yield address
    assert (await http.delete(address)).status_code == 204


@pytest.fixture(scope="module")
def session(sandbox: str) -> str:
    return f"{sandbox}/sessions/default"
