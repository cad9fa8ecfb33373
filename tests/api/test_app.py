"""The service from outside: what it refuses, and how it says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from interpreter.models import Problem


def problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(answer.content)
    assert found.status == answer.status_code and found.type == "about:blank" and found.detail
    return found


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/v1/sandboxes/", 404, "not_found"),
        ("GET", "/%2e%2e/etc/passwd", 404, "not_found"),
        ("GET", "/v1/sandboxes/..%2f..", 404, "not_found"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("PUT", "/v1/sandboxes", 405, "method_not_allowed"),
        ("GET", "/v1/sandboxes/unheard-of", 404, "sandbox_not_found"),
        ("DELETE", "/v1/sandboxes/unheard-of", 404, "sandbox_not_found"),
        ("GET", "/v1/sandboxes/unheard-of/sessions", 404, "sandbox_not_found"),
        ("GET", "/v1/sandboxes/%20", 422, "invalid_request"),
        ("GET", "/v1/sandboxes/%00", 422, "invalid_request"),
        ("GET", "/v1/sandboxes/%FF", 422, "invalid_request"),
        ("GET", "/v1/sandboxes/..", 422, "invalid_request"),
        ("GET", f"/v1/sandboxes/{'a' * 64}", 422, "invalid_request"),
        ("PUT", "/v1/sandboxes/-a", 422, "invalid_request"),
        ("GET", "/v1/sandboxes/a%0A", 422, "invalid_request"),
    ],
)
async def test_addresses_that_lead_nowhere(
    base_url: str, method: str, path: str, status: int, code: str
) -> None:
    host, _, port = base_url.removeprefix("http://").partition(":")
    answer = await raw(host, int(port), f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["code"] == code


async def raw(host: str, port: int, request: str) -> bytes:
    """One exchange as it is: an HTTP client would tidy the address up."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_inner_nouns_are_looked_for_from_the_outside_in(
    http: httpx.AsyncClient, sandbox: str
) -> None:
    for path, code in [
        ("/sessions/nope", "session_not_found"),
        ("/sessions/nope/contexts/nope", "session_not_found"),
        ("/sessions/default/contexts/nope", "context_not_found"),
        ("/executions/nope", "execution_not_found"),
        ("/executions/nope/events", "execution_not_found"),
        ("/processes/nope", "process_not_found"),
        ("/sessions/default/files/info?path=nope", "file_not_found"),
    ]:
        assert problem(await http.get(sandbox + path)).code == code


@pytest.mark.parametrize(
    "body",
    [
        b"{bad",
        b"[]",
        b'"text"',
        b"\xff",
        b'{"nope": 1}',
        b'{"id": "a b"}',
        b'{"id": "a", "id": "b"}',
        b'{"env": {"1A": ""}}',
        b'{"env": {"A": "\\u0000"}}',
        b'{"env": {"A": "\\ud800"}}',
        b'{"idle_timeout": NaN}',
        b'{"idle_timeout": 1e999}',
        b'{"idle_timeout": 0}',
        b'{"limits": {"memory_bytes": 99999999999999999999}}',
        b'{"limits": {"cpus": -1}}',
        b'{"network": "everything"}',
        b'{"network": {"allow": "x"}}',
        b'{"labels": ' + b"[" * 50_000,
    ],
)
async def test_bodies_that_the_schema_refuses(http: httpx.AsyncClient, body: bytes) -> None:
    before = (await http.get("/v1/sandboxes")).json()
    answer = await http.post("/v1/sandboxes", content=body)
    assert (answer.status_code, problem(answer).code) == (422, "invalid_request")
    assert (await http.get("/v1/sandboxes")).json() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_json_is_json_whatever_it_is_called(http: httpx.AsyncClient, kind: str) -> None:
    answer = await http.post("/v1/sandboxes", content=b" ", headers={"Content-Type": kind})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/sandboxes/{answer.json()['id']}"
    assert (await http.delete(answer.headers["location"])).status_code == 204


@pytest.mark.parametrize("name", ["PWD", "_", "SHLVL", "UID", "BASHOPTS", "POSIXLY_CORRECT"])
async def test_what_bash_sets_itself_cannot_be_given(
    http: httpx.AsyncClient, session: str, name: str
) -> None:
    for answer in (
        await http.patch(f"{session}/env", json={name: "x"}),
        await http.post(f"{session}/exec", json={"command": "true", "env": {name: None}}),
        await http.put("/v1/sandboxes/never", json={"env": {name: "x"}}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert f"{name} is set by the shell itself" in answer.json()["detail"]


async def test_what_exists_is_not_created_again(http: httpx.AsyncClient, sandbox: str) -> None:
    id = sandbox.rpartition("/")[2]
    assert problem(await http.post("/v1/sandboxes", json={"id": id})).code == "sandbox_exists"
    assert (await http.put(sandbox, json={"env": {"A": "b"}})).status_code == 200
    assert problem(await http.put(sandbox, json={"id": "other"})).code == "invalid_request"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_json_body_has_a_limit(
    http: httpx.AsyncClient, session: str, declared: bool
) -> None:
    async def chunks() -> Any:
        for _ in range(17):
            yield bytes(1024 * 1024)

    content = bytes(17 * 1024 * 1024) if declared else chunks()
    answer = await http.post(f"{session}/exec", content=content)
    assert (answer.status_code, problem(answer).code) == (413, "too_large")


async def test_head_and_options(http: httpx.AsyncClient, sandbox: str) -> None:
    head = await http.head("/v1/sandboxes")
    assert head.status_code == 200 and not head.content
    options = await http.options(sandbox)
    assert options.status_code == 204
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    refused = await http.patch(sandbox)
    assert problem(refused).code == "method_not_allowed"
    assert refused.headers["allow"] == options.headers["allow"]


async def test_unknown_query_parameters_are_ignored(http: httpx.AsyncClient, session: str) -> None:
    assert (await http.get(f"{session}/files?nope=1&hidden=false")).status_code == 200
    assert problem(await http.get(f"{session}/files?hidden=maybe")).code == "invalid_request"


async def test_health_languages_and_ports(http: httpx.AsyncClient, sandbox: str) -> None:
    health = (await http.get("/health")).json()
    assert health["ok"] is True and health["isolation"]["reason"]
    assert "python" in [item["language"] for item in (await http.get("/v1/languages")).json()]
    assert (await http.get(f"{sandbox}/ports")).json() == []


async def test_metrics_count_requests_by_route(http: httpx.AsyncClient, sandbox: str) -> None:
    await http.get(f"{sandbox}/sessions/default")
    await http.get("/no/such/place")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    route = "/v1/sandboxes/{sandbox}/sessions/{session}"
    counted = f'cellshell_requests_total{{method="GET",route="{route}",status="200"}} '
    assert any(line.startswith(counted) for line in lines)
    assert any('route="unmatched",status="404"' in line for line in lines)
    there = float(
        next(line for line in lines if line.startswith("cellshell_sandboxes ")).split()[1]
    )
    assert there >= 1
