"""The way to servers in a sandbox, with real servers in a real box."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets

pytestmark = pytest.mark.box
HTTP, WS, NOBODY = 8123, 8124, 8125
SERVERS = Path(__file__).parent / "servers"


async def start(http: httpx.AsyncClient, sandbox: str, name: str, port: int) -> None:
    session = f"{sandbox}/sessions/default"
    path = f"/workspace/{name}_server.py"
    program = (SERVERS / f"{name}.py").read_bytes()
    await http.put(f"{session}/files/content?path={path}", content=program)
    body = {"command": f"exec python3 {path} {port}", "id": name}
    assert (await http.post(f"{session}/processes", json=body)).status_code == 201
    wait = {"for": "port", "port": port, "timeout": 20}
    answer = await http.post(f"{sandbox}/processes/{name}/wait", json=wait)
    assert answer.status_code == 200, (await http.get(f"{sandbox}/processes/{name}/logs")).text


@pytest_asyncio.fixture(scope="module")
async def proxy(http: httpx.AsyncClient, sandbox: str) -> AsyncIterator[str]:
    await start(http, sandbox, "plain", HTTP)
    yield f"{sandbox}/ports/{HTTP}/proxy"


@pytest_asyncio.fixture(scope="module")
async def link(http: httpx.AsyncClient, sandbox: str, proxy: str) -> str:
    ports = (await http.get(f"{sandbox}/ports")).json()
    (url,) = [port["url"] for port in ports if port["port"] == HTTP]
    return str(url).removesuffix("/")


async def echo(
    http: httpx.AsyncClient, proxy: str, method: str = "GET", after: str = "", **more: Any
) -> dict[str, Any]:
    answer = await http.request(method, f"{proxy}/echo{after}", **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "method", [*["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "LOCK"]]
)
async def test_methods(http: httpx.AsyncClient, proxy: str, method: str) -> None:
    told = await echo(http, proxy, method, content=b"abc" if method != "GET" else None)
    assert (told["method"], told["body"]) == (method, 3 if method != "GET" else 0)


@pytest.mark.parametrize("method", ["TRACE"])
async def test_methods_that_are_not_carried(
    http: httpx.AsyncClient, proxy: str, link: str, method: str
) -> None:
    for address in (proxy, link):
        answer = await http.request(method, f"{address}/echo")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


async def test_head(http: httpx.AsyncClient, proxy: str) -> None:
    answer = await http.head(f"{proxy}/echo")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("asked", "arrives"),
    [
        ("?a=1&b=%20%2F&c", "/echo?a=1&b=%20%2F&c"),
        ("?token=secret&a=1&token=x", "/echo?a=1"),
        ("?%74oken=secret", "/echo"),
    ],
)
async def test_queries(http: httpx.AsyncClient, proxy: str, asked: str, arrives: str) -> None:
    assert (await echo(http, proxy, after=asked))["target"] == arrives


async def test_paths_arrive_as_they_were_written(
    http: httpx.AsyncClient, base_url: str, proxy: str
) -> None:
    written = "/%65cho%2F..%2f//x;y=1/%C3%A9?b=%20/../"
    url = httpx.URL(base_url).copy_with(raw_path=(proxy + written).encode())
    answer = await http.get(url)
    assert answer.json()["target"] == written


async def test_what_the_server_is_told(http: httpx.AsyncClient, proxy: str, base_url: str) -> None:
    headers = {
        "Authorization": "Bearer secret",
        "Cookie": "a=1",
        "Referer": f"{base_url}{proxy}/?token=secret",
        "Origin": base_url,
        "X-Forwarded-For": "9.9.9.9",
        "Connection": "x-hop",
        "X-Hop": "1",
        "X-Mine": "é".encode().decode("latin-1"),
    }
    told = await echo(
        http, proxy, "POST", headers={k: v.encode("latin-1") for k, v in headers.items()}
    )
    found = {name.lower(): value for name, value in told["headers"]}
    assert "secret" not in json.dumps(told)
    assert not {"authorization", "cookie", "referer", "x-hop", "x-forwarded-for"} & found.keys()
    assert found["host"] == f"localhost:{HTTP}"
    assert found["origin"] == f"http://localhost:{HTTP}"
    assert found["x-mine"].encode("latin-1") == "é".encode()
    assert found["x-forwarded-prefix"] == proxy
    assert base_url.endswith(found["x-forwarded-host"])


async def test_what_the_caller_is_told(http: httpx.AsyncClient, proxy: str) -> None:
    answer = await http.get(f"{proxy}/headers")
    policies = answer.headers.get_list("content-security-policy")
    assert policies == ["default-src 'self'", "sandbox allow-scripts allow-forms"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("x-mine") == ["1", "2"]
    for name in ("set-cookie", "service-worker-allowed", "clear-site-data", "x-hop", "keep-alive"):
        assert name not in answer.headers


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("/next?a=1", "{proxy}/next?a=1"),
        ("next", "next"),
        (f"http://localhost:{HTTP}/x", "{proxy}/x"),
        (f"http://127.0.0.1:{HTTP}", "{proxy}/"),
        ("https://example.org/", "https://example.org/"),
        ("//example.org/", "//example.org/"),
    ],
)
async def test_redirects(http: httpx.AsyncClient, proxy: str, said: str, meant: str) -> None:
    answer = await http.get(f"{proxy}/redirect", headers={"X-To": said})
    assert answer.status_code == 302
    assert answer.headers["location"] == meant.format(proxy=proxy)


async def test_events_arrive_one_by_one(http: httpx.AsyncClient, proxy: str) -> None:
    async with http.stream("GET", f"{proxy}/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        times = [time.monotonic() async for line in answer.aiter_lines() if line]
    assert len(times) == 3
    assert times[2] - times[0] > 0.3


async def test_large_both_ways(http: httpx.AsyncClient, proxy: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"z" * 1_000_000

    told = await echo(http, proxy, "POST", content=pieces())
    assert told["body"] == 50_000_000
    size = 0
    async with http.stream("GET", f"{proxy}/large") as answer:
        async for piece in answer.aiter_bytes():
            size += len(piece)
    assert size == 50_000_000


async def test_a_caller_that_goes_away_ends_it(http: httpx.AsyncClient, proxy: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        async with http.stream("GET", f"{proxy}/endless") as answer:
            async for _piece in answer.aiter_bytes():
                break
    for _ in range(100):
        if len(os.listdir("/proc/self/fd")) <= before + 1:
            return
        await asyncio.sleep(0.05)
    pytest.fail("connections were left open")


async def test_an_answer_before_the_end_of_the_upload(http: httpx.AsyncClient, proxy: str) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"z" * 1000
            await asyncio.sleep(0.01)

    answer = await http.post(f"{proxy}/early", content=slowly())
    assert (answer.status_code, answer.text) == (413, "no")


@pytest.mark.parametrize(
    ("what", "status", "body"),
    [("204", 204, ""), ("304", 304, ""), ("103", 200, "hi"), ("close", 200, "until the end")],
)
async def test_framings(
    http: httpx.AsyncClient, proxy: str, what: str, status: int, body: str
) -> None:
    answer = await http.get(f"{proxy}/{what}")
    assert (answer.status_code, answer.text) == (status, body)


@pytest.mark.parametrize(
    "what", ["garbage", "silent", "huge", "many", "split", "lengths", "upgrade"]
)
async def test_what_is_no_answer(http: httpx.AsyncClient, proxy: str, what: str) -> None:
    answer = await http.get(f"{proxy}/{what}")
    assert (answer.status_code, answer.json()["code"]) == (502, "port_unreachable"), answer.text


async def test_an_answer_cut_short_does_not_look_whole(http: httpx.AsyncClient, proxy: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"{proxy}/cut")


async def test_nobody_listens(http: httpx.AsyncClient, sandbox: str, proxy: str) -> None:
    answer = await http.get(f"{sandbox}/ports/{NOBODY}/proxy/")
    assert (answer.status_code, answer.json()["code"]) == (502, "port_unreachable")
    page = await http.get(
        f"{sandbox}/ports/{NOBODY}/proxy/",
        headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"},
        follow_redirects=True,
    )
    assert page.status_code == 502
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("sandbox")
    assert f"Port {NOBODY} does not answer" in page.text


@pytest.mark.parametrize(
    "port", ["0", "65536", "-1", "x", "8e3", "٣", "999999999999", "0000000010000000", "1" * 5000]
)
async def test_what_is_no_port(http: httpx.AsyncClient, sandbox: str, port: str) -> None:
    answer = await http.get(f"{sandbox}/ports/{port}/proxy/")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_no_service_workers(http: httpx.AsyncClient, proxy: str) -> None:
    answer = await http.get(f"{proxy}/echo", headers={"Service-Worker": "script"})
    assert answer.status_code == 403


async def test_browsers_are_sent_to_a_link(http: httpx.AsyncClient, proxy: str, link: str) -> None:
    answer = await http.get(f"{proxy}/echo?a=1", headers={"Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{link}/echo?a=1"
    assert (await http.get(link)).headers["location"] == f"{link}/"
    told = await echo(http, link)
    assert told["target"] == "/echo"


async def test_a_page_may_call_its_own_server(
    http: httpx.AsyncClient, link: str, proxy: str
) -> None:
    mine = {"Origin": "null"}
    answer = await http.post(f"{link}/echo", headers=mine, json={})
    assert answer.headers["access-control-allow-origin"] == "null"
    asked = {
        **mine,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-a",
    }
    answer = await http.options(f"{link}/echo", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == "PUT"
    assert (await http.post(f"{proxy}/echo", headers=mine)).json()["code"] == "origin_refused"


async def test_a_link_opens_nothing_else(http: httpx.AsyncClient, sandbox: str, link: str) -> None:
    other = link.replace(str(HTTP), str(WS))
    assert (await http.get(f"{other}/")).status_code == 403
    forged = link[:-1] + ("0" if link[-1] != "0" else "1")
    answer = await http.get(f"{forged}/", headers={"Origin": "null"})
    assert answer.json()["code"] == "origin_refused"
    answer = await http.get(f"{link}/../../../../sessions", headers={"Origin": "null"})
    assert answer.status_code in (403, 404)


# WebSockets


async def start_sockets(http: httpx.AsyncClient, sandbox: str) -> None:
    session = f"{sandbox}/sessions/default"
    body = {"command": "python3 -c 'import websockets'"}
    if (await http.post(f"{session}/exec", json=body)).json()["exit_code"]:
        path = os.path.dirname(websockets.__file__)
        archive = await asyncio.to_thread(_packed, path)
        address = f"{session}/files/archive?path=/workspace/lib"
        assert (await http.put(address, content=archive)).status_code < 300
        await http.patch(f"{session}/env", json={"PYTHONPATH": "/workspace/lib"})
    await start(http, sandbox, "sockets", WS)


@pytest_asyncio.fixture(scope="module")
async def sockets(http: httpx.AsyncClient, sandbox: str, base_url: str) -> str:
    await start_sockets(http, sandbox)
    return base_url.replace("http", "ws") + f"{sandbox}/ports/{WS}/proxy"


def _packed(path: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(path, "websockets")
    return packed.getvalue()


def connect(url: str, **options: Any) -> Any:
    return websockets.connect(url, proxy=None, max_size=None, **options)


async def test_messages_both_ways(sockets: str) -> None:
    headers = {"Authorization": "Bearer secret", "X-Mine": "1"}
    url = f"{sockets}/a%20b?x=1&token=secret"
    async with connect(url, subprotocols=["one", "three"], additional_headers=headers) as socket:
        told = json.loads(await socket.recv())
        assert socket.subprotocol == told["chosen"] == "one"
        assert told["path"] == "/a%20b?x=1"
        assert "secret" not in json.dumps(told)
        assert ["X-Mine", "1"] in [[k.title(), v] for k, v in told["headers"]]
        for message in ("text é", b"\0\xff", "", b"", "x" * 1_000_000, os.urandom(5_000_000)):
            await socket.send(message)
            assert await socket.recv() == message


async def test_closing(http: httpx.AsyncClient, sandbox: str, sockets: str) -> None:
    async with connect(f"{sockets}/close") as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4321, "enough")
    async with connect(f"{sockets}/") as socket:
        await socket.recv()
        await socket.close(4000, "bye")
    wait = {"for": "log", "pattern": "closed 4000 bye", "timeout": 10}
    assert (await http.post(f"{sandbox}/processes/sockets/wait", json=wait)).status_code == 200


async def test_sockets_that_are_refused(sandbox: str, sockets: str, proxy: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(f"{sockets}/forbidden"):
            pass
    assert refused.value.response.status_code == 403
    for url in (sockets.replace(str(WS), str(NOBODY)), sockets.replace(str(WS), str(HTTP))):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(f"{url}/"):
                pass
        assert refused.value.response.status_code == 502
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(f"{sockets}/", origin="null"):
            pass
    assert refused.value.response.status_code == 403
