"""A real service on a real port; each module has a sandbox of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.api.conftest import base_url, http, sandbox, session, settings

__all__ = ["base_url", "code", "exec", "fresh", "http", "sandbox", "session", "settings"]

Run = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="module")
def exec(http: httpx.AsyncClient, session: str) -> Run:
    """Runs a command in the module's session; the answer's document."""

    async def run(command: str, at: str = session, **fields: Any) -> dict[str, Any]:
        answer = await http.post(f"{at}/exec", json={"command": command, **fields})
        return dict(answer.json())

    return run


@pytest.fixture(scope="module")
def code(http: httpx.AsyncClient, session: str) -> Run:
    """Runs code in the module's session; the answer's document."""

    async def run(code: str, at: str = session, **fields: Any) -> dict[str, Any]:
        answer = await http.post(f"{at}/code", json={"code": code, **fields})
        return dict(answer.json())

    return run


@pytest_asyncio.fixture
async def fresh(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """The address of a sandbox of the test's own, which the test may delete."""
    made = (await http.post("/v1/sandboxes")).json()
    address = f"/v1/sandboxes/{made['id']}"
    yield address
    assert (await http.delete(address)).status_code in (204, 404)
