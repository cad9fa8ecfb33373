"""Pausing and idle policies over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import websockets


async def status(http: httpx.AsyncClient, sandbox: str) -> str:
    return str((await http.get(sandbox)).json()["status"])


@pytest.fixture
def pause(http: httpx.AsyncClient, sandbox: str) -> Any:
    async def pause() -> None:
        answer = await http.post(f"{sandbox}/pause")
        assert (answer.status_code, answer.json()["status"]) == (200, "paused")

    return pause


async def test_looking_does_not_wake(
    http: httpx.AsyncClient, sandbox: str, session: str, pause: Any
) -> None:
    await http.post(f"{session}/exec", json={"command": "echo hi", "id": "before"})
    await pause()
    for path in ("", "/executions/before", "/sessions", "/processes"):
        assert (await http.get(f"{sandbox}{path}")).status_code == 200
    listed = {each["id"]: each["status"] for each in (await http.get("/v1/sandboxes")).json()}
    assert listed[sandbox.rpartition("/")[2]] == "paused"
    assert await status(http, sandbox) == "paused"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "{sandbox}/resume", None),
        ("POST", "{session}/exec", {"command": "true"}),
        ("POST", "{session}/code", {"code": "1"}),
        ("GET", "{session}/files?path=/workspace", None),
        ("PUT", "{session}/files/content?path=/workspace/x", None),
        ("PATCH", "{session}/env", {"A": "1"}),
        ("POST", "{session}/processes", {"command": "true"}),
        ("GET", "{sandbox}/ports", None),
        ("GET", "{session}/contexts/python/variables", None),
        ("PUT", "{sandbox}", None),
    ],
)
async def test_calls_wake(
    http: httpx.AsyncClient,
    *,
    sandbox: str,
    session: str,
    pause: Any,
    method: str,
    path: str,
    body: Any,
) -> None:
    await http.post(f"{session}/code", json={"code": "1"})
    await pause()
    address = path.format(sandbox=sandbox, session=session)
    answer = await http.request(method, address, json=body)
    assert answer.status_code < 300, answer.text
    assert await status(http, sandbox) == "running"


async def test_a_terminal_wakes(
    http: httpx.AsyncClient, base_url: str, sandbox: str, session: str, pause: Any
) -> None:
    url = base_url.replace("http", "ws") + f"{session}/terminal"
    async with websockets.connect(url, proxy=None) as socket:
        assert '"ready"' in str(await socket.recv())
        await pause()
        await socket.send(b"echo a$((1 + 1))b; exit\n")
        said = ""
        while "a2b" not in said:
            piece = await socket.recv()
            said += piece.decode() if isinstance(piece, bytes) else ""
    assert await status(http, sandbox) == "running"


async def test_a_cancel_reaches_what_is_paused(
    http: httpx.AsyncClient, sandbox: str, session: str, pause: Any
) -> None:
    body = {"command": "sleep 1000", "id": "long"}
    assert (await http.post(f"{session}/exec?detach=true", json=body)).status_code == 202
    await pause()
    assert (await http.delete(f"{sandbox}/executions/long")).status_code == 204
    result = (await http.get(f"{sandbox}/executions/long")).json()
    assert (result["cancelled"], result["notices"]) == (True, [])


@pytest.mark.parametrize("timeout", [0, -1, "5", 1e300, [], True])
async def test_what_is_no_idle_timeout(http: httpx.AsyncClient, timeout: Any) -> None:
    answer = await http.post("/v1/sandboxes", json={"idle_timeout": timeout})
    assert answer.status_code == 422


async def test_idle_policy_is_told(http: httpx.AsyncClient) -> None:
    body = {"id": "idler", "idle_timeout": 3600, "on_idle": "destroy"}
    answer = await http.post("/v1/sandboxes", json=body)
    try:
        told = answer.json()
        assert (told["idle_timeout"], told["on_idle"]) == (3600, "destroy")
    finally:
        await http.delete("/v1/sandboxes/idler")
    answer = await http.post("/v1/sandboxes", json={"on_idle": "explode"})
    assert answer.status_code == 422


async def test_nobody_is_paused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/sandboxes/nobody/pause")
    assert answer.json()["code"] == "sandbox_not_found"
