"""The Jupyter door's REST API: kernelspecs, kernels and sessions, as frontends call it."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.api.frontend import attached

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest_asyncio.fixture(scope="module", autouse=True)
async def home(http: httpx.AsyncClient) -> AsyncIterator[None]:
    """The sandbox that kernels of frontends are started in."""
    yield
    await http.delete("/v1/sandboxes/jupyter")


@pytest_asyncio.fixture
async def started(http: httpx.AsyncClient) -> AsyncIterator[dict[str, Any]]:
    """A kernel that a frontend has started."""
    model = (await http.post("/api/kernels", json={"name": "python3"})).json()
    yield model
    await http.delete(f"/api/kernels/{model['id']}")


async def _specs(http: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get("/api/kernelspecs?17000")).json()
    return found


async def test_kernelspecs(http: httpx.AsyncClient, started: dict[str, Any]) -> None:
    specs = await _specs(http)
    assert specs["default"] in specs["kernelspecs"]
    for name, spec in specs["kernelspecs"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert (spec["name"], spec["resources"]) == (name, {})
        assert {"argv", "display_name", "language", "env"} <= spec["spec"].keys()
        assert (await http.get(f"/api/kernelspecs/{name}")).json() == spec
    running = [spec for name, spec in specs["kernelspecs"].items() if name.startswith("running-")]
    assert any("Attach: jupyter/jupyter-" in spec["spec"]["display_name"] for spec in running)


async def test_a_kernel_of_a_frontends_own(http: httpx.AsyncClient) -> None:
    """It has a session to itself, which ends with it."""
    answer = await http.post("/api/kernels", json={"name": "python3", "env": {"KERNEL_X": "1"}})
    model = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/kernels/{model['id']}"
    assert re.fullmatch(r"\w+-\w+-\w+-\w+-\w+", model["id"])
    assert STAMP.fullmatch(model["last_activity"])
    assert (model["name"], model["connections"]) == ("python3", 0)
    assert model["execution_state"] in ("starting", "idle", "busy")
    assert model in (await http.get("/api/kernels")).json()
    sessions = (await http.get("/v1/sandboxes/jupyter")).json()["sessions"]
    assert (await http.delete(f"/api/kernels/{model['id']}")).status_code == 204
    assert (await http.get(f"/api/kernels/{model['id']}")).status_code == 404
    left = (await http.get("/v1/sandboxes/jupyter")).json()["sessions"]
    assert len(left) == len(sessions) - 1


async def test_a_kernel_in_a_sandbox_of_choice(http: httpx.AsyncClient, sandbox: str) -> None:
    id = sandbox.rpartition("/")[2]
    await http.post(f"{sandbox}/sessions/default/code", json={"code": "1"})
    assert f"python3--{id}" in (await _specs(http))["kernelspecs"]
    model = (await http.post("/api/kernels", json={"name": f"python3--{id}"})).json()
    sessions = (await http.get(sandbox)).json()["sessions"]
    assert any(name.startswith("jupyter-") for name in sessions)
    await http.delete(f"/api/kernels/{model['id']}")


async def test_what_an_api_user_owns_stays(http: httpx.AsyncClient, session: str) -> None:
    await http.post(f"{session}/code", json={"code": "x = 1"})
    listed = (await http.get("/api/sessions")).json()
    path = session.replace("/v1/sandboxes/", "").replace("/sessions/", "/") + "/python"
    [model] = [each for each in listed if each["path"] == path]
    again = await http.post("/api/kernels", json={"name": f"running-{model['kernel']['id'][:8]}"})
    assert again.json()["id"] == model["kernel"]["id"]
    assert (await http.delete(f"/api/kernels/{model['kernel']['id']}")).status_code == 204
    assert (await http.delete(f"/api/sessions/{model['id']}")).status_code == 204
    assert (await http.post(f"{session}/code", json={"code": "x"})).json()["text"] == "1"


async def _running(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What a frontend attaches to by the name of a kernelspec."""
    [model] = [each for each in (await http.get("/api/sessions")).json() if each["path"] == path]
    answer = await http.post("/api/kernels", json={"name": f"running-{model['kernel']['id'][:8]}"})
    return dict(answer.json())


async def test_what_others_have_joined_or_added_stays(http: httpx.AsyncClient) -> None:
    """Whatever a frontend ends: the shell of its session, or a context made over the API."""
    for join in (True, False):
        before = set((await http.get("/v1/sandboxes/jupyter")).json()["sessions"])
        started = (await http.post("/api/kernels", json={"name": "python3"})).json()
        after = set((await http.get("/v1/sandboxes/jupyter")).json()["sessions"])
        [name] = after - before
        session = f"/v1/sandboxes/jupyter/sessions/{name}"
        if join:
            await _running(http, f"jupyter/{name}/$")
        else:
            await http.post(f"{session}/contexts", json={"id": "mine"})
        await http.post(f"{session}/code", json={"code": "x = 1"})
        await http.delete(f"/api/kernels/{started['id']}")
        assert (await http.post(f"{session}/code", json={"code": "x"})).json()["text"] == "1"
        assert (await http.delete(session)).status_code == 204


async def test_a_kernel_exchanged_for_itself(http: httpx.AsyncClient) -> None:
    asked = {"path": "a", "name": "a", "type": "notebook", "kernel": {"name": "python3"}}
    model = (await http.post("/api/sessions", json=asked)).json()
    same = {"name": f"running-{model['kernel']['id'][:8]}"}
    again = await http.patch(f"/api/sessions/{model['id']}", json={"kernel": same})
    assert again.json()["kernel"]["id"] == model["kernel"]["id"]
    assert (await http.get(f"/api/kernels/{model['kernel']['id']}")).status_code == 200


async def test_sessions(http: httpx.AsyncClient) -> None:
    asked = {"path": "work/a.ipynb-uuid", "name": "a.ipynb", "type": "notebook"}
    answer = await http.post("/api/sessions", json={**asked, "kernel": {"name": "python3"}})
    assert answer.status_code == 201
    model = answer.json()
    assert {name: model[name] for name in asked} == asked
    assert model["notebook"] == {"path": asked["path"], "name": "a.ipynb"}
    address = f"/api/sessions/{model['id']}"
    assert (await http.get(address)).json()["path"] == asked["path"]
    changed = await http.patch(address, json={"id": model["id"], "path": "work/b.ipynb"})
    assert (changed.status_code, changed.json()["path"]) == (200, "work/b.ipynb")
    other = await http.patch(address, json={"kernel": {"name": "python3"}})
    assert other.json()["kernel"]["id"] != model["kernel"]["id"]
    assert (await http.get(address)).status_code == 404
    assert (await http.delete(f"/api/sessions/{other.json()['id']}")).status_code == 204


async def test_attaching_by_id(http: httpx.AsyncClient, started: dict[str, Any]) -> None:
    body = {"path": "n", "name": "n", "type": "notebook", "kernel": {"id": started["id"]}}
    model = (await http.post("/api/sessions", json=body)).json()
    assert model["kernel"]["id"] == started["id"]


@pytest.mark.parametrize("type", ["text/plain;charset=UTF-8", "application/json", "", "x/y"])
async def test_bodies_of_any_type(http: httpx.AsyncClient, type: str) -> None:
    headers = {"Content-Type": type} if type else {}
    answer = await http.post("/api/kernels", content=b'{"name": "python3"}', headers=headers)
    assert answer.status_code == 201
    address = f"/api/kernels/{answer.json()['id']}"
    assert (
        await http.post(f"{address}/interrupt", content=b"", headers=headers)
    ).status_code == 204
    assert (await http.delete(address)).status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/kernels", {"name": "no-such"}, 400),
        ("POST", "/api/kernels", {"name": "running-00000000"}, 404),
        ("POST", "/api/kernels", {"name": "python3--no-such-sandbox"}, 404),
        ("POST", "/api/kernels", {"name": 3}, 422),
        ("POST", "/api/kernels", [1], 422),
        ("POST", "/api/sessions", {}, 422),
        ("POST", "/api/sessions", {"kernel": {"id": "x"}}, 404),
        ("GET", "/api/kernels/11111111-1111-1111-1111-111111111111", None, 404),
        ("DELETE", "/api/kernels/x", None, 404),
        ("POST", "/api/kernels/x/restart", {}, 404),
        ("PATCH", "/api/sessions/x", {}, 404),
        ("GET", "/api/kernelspecs/none", None, 404),
        ("GET", "/hub/api", None, 404),
    ],
)
async def test_what_cannot_be(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int
) -> None:
    answer = await http.request(method, path, json=body)
    assert answer.status_code == status
    if path.startswith("/api/"):
        document = answer.json()
        assert document["message"] == document["detail"]
        assert document["reason"]


async def test_what_frontends_look_at_first(http: httpx.AsyncClient) -> None:
    assert (await http.get("/tree?")).status_code == 200
    assert re.match(r"\d+\.\d+", (await http.get("/api")).json()["version"])
    assert (await http.get("/api/me")).json()["identity"]["name"]
    status = (await http.get("/api/status")).json()
    assert STAMP.fullmatch(status["started"]) and STAMP.fullmatch(status["last_activity"])


async def test_connections_are_counted(
    base_url: str, http: httpx.AsyncClient, started: dict[str, Any]
) -> None:
    async with attached(base_url, started["id"]) as lab:
        assert (await http.get(f"/api/kernels/{started['id']}")).json()["connections"] == 1
        await lab.run("1")
    await http.get(f"/api/kernels/{secrets.token_hex(4)}")
