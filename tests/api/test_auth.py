"""Tokens, hosts, origins: a tiny app behind the real guard."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.auth import Guard, take_tokens
from api.port_tickets import Tickets

TOKEN = "s3cr+et é"
BEARER = {"Authorization": f"Bearer {TOKEN}".encode()}
LINK = {"token": TOKEN}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["query_string"].decode())(scope, receive, send)


async def ask(
    token: str | None = None,
    method: str = "GET",
    path: str = "/v1/sandboxes",
    origins: list[str] | None = None,
    **options: Any,
) -> httpx.Response:
    secret = SecretStr(token) if token else None
    guard = Guard(echo, token=secret, tickets=Tickets(secret), allowed_origins=origins or [])
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        return await client.request(method, path, **options)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]", "[::1]:65535"])
async def test_without_a_token_loopback_names_are_served(host: str) -> None:
    assert (await ask(headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil", "localhost:", "::1"]
)
async def test_without_a_token_other_hosts_are_refused(host: str) -> None:
    answer = await ask(headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_refused")


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://localhost:3000", ""])
async def test_foreign_origins_are_refused(origin: str) -> None:
    answer = await ask(headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://Localhost:8000"])
async def test_its_own_pages_may_call(origin: str) -> None:
    assert (await ask(headers={"Origin": origin})).status_code == 200


async def test_an_allowed_origin_may_call() -> None:
    headers = {"Origin": "https://lab.example"}
    assert (await ask(origins=["https://lab.example/"], headers=headers)).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token"])
async def test_a_token_in_a_header_lets_in_from_anywhere(scheme: str) -> None:
    headers = {
        "Authorization": f"{scheme} {TOKEN}".encode(),
        "Host": "evil.example",
        "Origin": "http://evil.example",
    }
    assert (await ask(TOKEN.encode().decode("latin-1"), headers=headers)).status_code == 401
    assert (await ask(TOKEN, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": ""}],
)
async def test_a_missing_or_wrong_token_is_refused_before_anything_else(
    headers: dict[str, str],
) -> None:
    answer = await ask(TOKEN, path="/no/such/route", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text


async def test_a_link_carries_its_token_and_loses_it_on_the_way() -> None:
    answer = await ask(TOKEN, params={"a": "1", **LINK, "b": "2"})
    assert (answer.status_code, answer.text) == (200, "a=1&b=2")


async def test_a_token_in_the_address_is_for_reading_only() -> None:
    assert (await ask(TOKEN, method="POST", params=LINK)).status_code == 401


async def test_a_foreign_page_cannot_use_a_link() -> None:
    answer = await ask(TOKEN, params=LINK, headers={"Origin": "null"})
    assert answer.json()["code"] == "origin_refused"


async def test_health_needs_no_token() -> None:
    assert (await ask(TOKEN, path="/health")).status_code == 200
    assert (await ask(TOKEN, path="/health/x")).status_code == 401


async def test_an_empty_token_is_none() -> None:
    assert (await ask("", params={"token": ""}, headers={"Host": "evil"})).status_code == 403


async def test_a_huge_head_is_refused() -> None:
    answer = await ask(headers={"X": "x" * 65_536})
    assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("query", "tokens", "rest"),
    [
        (b"", [], b""),
        (b"a=token", [], b"a=token"),
        (b"token=a%2Bb+c&x=%FF", [b"a+b c"], b"x=%FF"),
        (b"to%6ben=x&token=y", [b"x", b"y"], b""),
        (b"a=1&token=", [b""], b"a=1"),
    ],
)
def test_tokens_are_taken_out_of_the_scope_itself(
    query: bytes, tokens: list[bytes], rest: bytes
) -> None:
    scope: Scope = {"query_string": query}
    assert take_tokens(scope) == tokens
    assert scope["query_string"] == rest


async def handshake(extensions: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "websocket",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "extensions": extensions,
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    secret = SecretStr(TOKEN)
    await Guard(echo, token=secret, tickets=Tickets(secret))(scope, receive, send)
    return sent


async def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    start, body = await handshake({"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert b"unauthorized" in body["body"]


async def test_a_server_without_denials_closes_a_websocket_with_a_code() -> None:
    (close,) = await handshake({})
    assert (close["type"], close["code"]) == ("websocket.close", 4401)
