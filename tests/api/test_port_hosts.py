"""Ports with host names of their own: what opens them, what passes, and what never does."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
import websockets

from api.serving import serving
from interpreter.settings import Settings
from tests.api.test_port_browser import browsing
from tests.api.test_port_proxy import HTTP, WS, start, start_sockets

TOKEN = "s3cret-token"
SITE = "/v1/sandboxes/site"
PAGE_PORT = 8090
PAGE = """<!doctype html><script>
const told = {origin: self.origin, href: location.href};
const attempt = async (name, act) => {
  try { told[name] = String(await act()); } catch (error) { told[name] = "failed: " + error.name; }
};
(async () => {
  const api = "http://127.0.0.1:" + location.port + "/v1/sandboxes";
  await attempt("storage", async () => { localStorage.a = "kept"; return localStorage.a; });
  await attempt("cookie", async () => { document.cookie = "mine=1"; return document.cookie; });
  await attempt("own", async () => (await fetch("/v1/sandboxes")).status);
  await attempt("read", async () => (await fetch(api, {credentials: "include"})).text());
  await attempt("sibling", async () => (await fetch(
    location.origin.replace("8090", "8123") + "/echo", {credentials: "include"})).text());
  await attempt("worker", async () => navigator.serviceWorker.register("/own.js"));
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""
SERVER = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/"
        self.send_response(200 if found else 404); self.send_header("Content-Type", "text/html")
        self.end_headers(); self.wfile.write({PAGE!r}.encode() if found else b"")
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        print("TOLD", self.rfile.read(length).decode(), flush=True)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", {PAGE_PORT}), Handler).serve_forever()
"""
pytestmark = [pytest.mark.box, pytest.mark.timeout(60)]


class Place(NamedTuple):
    api: httpx.AsyncClient
    address: str
    host: str
    """Of the port of the plain server."""
    cookie: str
    guarded: bool
    """Whether the service has a token."""


@pytest_asyncio.fixture(scope="module", params=[None, TOKEN], ids=["loopback", "token"])
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = Settings(
            home=tmp_path_factory.mktemp("home"),
            token=request.param,
            on_stop="destroy",
            ports_domain=f"http://ports.localhost:{port}",
            port_answer_seconds=1,
        )
        address = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            serving(settings, listener),
            httpx.AsyncClient(
                base_url=address, headers=headers, timeout=30, trust_env=False
            ) as api,
        ):
            await api.put(SITE)
            await start(api, SITE, "plain", HTTP)
            links = {each["port"]: each["url"] for each in (await api.get(f"{SITE}/ports")).json()}
            host, _, path = links[HTTP].removeprefix("http://").partition("/")
            answer = await api.get(f"/{path}some?a=1", headers={"Host": host})
            assert (answer.status_code, answer.headers["location"]) == (303, "/some?a=1")
            cookie = answer.headers["set-cookie"].partition(";")[0]
            assert "; HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]
            assert "domain" not in answer.headers["set-cookie"].lower()
            yield Place(api, address, host, cookie, request.param is not None)
            await api.delete(SITE)


async def ask(place: Place, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    given = {"Host": place.host, "Cookie": place.cookie}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await place.api.request(method, path, headers=given)


async def test_the_server_sees_nothing_of_ours(place: Place) -> None:
    cookie = f"a=1; {place.cookie}; b=2"
    answer = await ask(place, "/echo?x=1", Cookie=cookie, Origin=f"http://{place.host}")
    headers = dict(answer.json()["headers"])
    assert place.cookie.partition("=")[2] not in answer.text and TOKEN not in answer.text
    assert headers["cookie"].replace(" ", "") == "a=1;b=2"
    assert headers["origin"] == f"http://{headers['host']}" == f"http://localhost:{HTTP}"
    assert headers["x-forwarded-host"] == place.host


async def test_the_token_stays_out_and_others_pass(place: Place) -> None:
    others = await ask(place, "/echo?token=its-own&a=1")
    assert others.json()["target"] == "/echo?token=its-own&a=1"
    if place.guarded:
        ours = await ask(place, f"/echo?token={TOKEN}&a=1")
        assert ours.json()["target"] == "/echo?a=1"


async def test_cookies_are_for_their_own_host_alone(place: Place) -> None:
    answer = await ask(place, "/headers")
    assert answer.headers.get_list("set-cookie") == ["a=1"]
    assert "allow-same-origin" in answer.headers["content-security-policy"]
    assert "service-worker-allowed" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/v1/sandboxes", "/health", "/openapi.json", "/metrics"])
async def test_nothing_of_the_service_is_reached(place: Place, path: str) -> None:
    answer = await ask(place, path)
    assert "text/html" not in answer.headers.get("content-type", "")
    assert answer.headers["content-security-policy"].startswith("sandbox")
    closed = await ask(place, path, Cookie="")
    assert (closed.status_code, closed.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "null"},
        {"Origin": "http://8090-site.ports.localhost"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Service_Worker": "script"},
    ],
)
async def test_what_others_send_is_refused(place: Place, headers: dict[str, str]) -> None:
    assert (await ask(place, "/echo", **headers)).status_code == 403


async def test_a_link_from_elsewhere_shows_the_page(place: Place) -> None:
    shown = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert (await ask(place, "/echo", **shown, Sec_Fetch_Dest="document")).status_code == 200
    posted = await ask(place, "/echo", "POST", **shown, Sec_Fetch_Dest="document")
    assert posted.status_code == 403


@pytest.mark.parametrize("label", ["8123-other", "x", "a.b", "0-site", "8123-SITE.more"])
async def test_names_of_nothing(place: Place, label: str) -> None:
    host = place.host.replace("8123-site", label)
    wrong = [{"Host": host}, {"Host": host, "Cookie": ""}, {"Cookie": "cellshell-port=wrong"}]
    answers = [await ask(place, "/v1/sandboxes", **each) for each in wrong]
    assert {each.status_code for each in answers} == {401}
    assert len({each.content for each in answers}) == 1  # so that nobody learns which there are


async def test_hosts_that_are_odd_or_two_never_reach_the_service(place: Place) -> None:
    for host in (f"{place.host}.", f"{place.host}x", place.host.upper(), f"a:b@{place.host}"):
        answer = await ask(place, "/v1/languages", Host=host)
        assert "aliases" not in answer.text
    address = place.address.removeprefix("http://")
    for hosts in ((place.host, address), (address, place.host)):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        lines = ["GET /v1/languages HTTP/1.1", f"Authorization: Bearer {TOKEN}"]
        lines += [*(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert b"host_refused" in answer and b"aliases" not in answer


async def test_a_ticket_is_for_one_port(place: Place) -> None:
    other = place.host.replace("8123", "8124")
    ticket = place.cookie.partition("=")[2]
    assert (await ask(place, f"/.cellshell/open/{ticket}/", Host=other)).status_code == 401
    away = await ask(place, f"/.cellshell/open/{ticket}//evil.example/")
    assert away.headers["location"] == "/evil.example/"
    assert (await ask(place, f"/.cellshell/open/{ticket}/", "POST")).status_code == 405


async def test_any_method_and_no_trace(place: Place) -> None:
    assert (await ask(place, "/echo", "PROPFIND")).json()["method"] == "PROPFIND"
    assert (await ask(place, "/echo", "TRACE")).status_code == 405


async def test_a_silent_server(place: Place) -> None:
    answer = await ask(place, "/stuck")
    assert (answer.status_code, answer.json()["code"]) == (504, "port_silent")


async def test_a_stream_that_began_may_take_its_time(place: Place) -> None:
    assert (await ask(place, "/slow")).text == "hi"


async def test_web_sockets(place: Place) -> None:
    await start_sockets(place.api, SITE)
    ports = (await place.api.get(f"{SITE}/ports")).json()
    (link,) = [each["url"] for each in ports if each["port"] == WS]
    host, _, path = link.removeprefix("http://").partition("/")
    entered = await place.api.get(f"/{path}", headers={"Host": host})
    cookie = entered.headers["set-cookie"].partition(";")[0]
    right = {"Host": host, "Cookie": cookie, "Origin": f"http://{host}"}
    async with connected(place, right) as server:
        told = str(await server.recv())
        assert cookie.partition("=")[2] not in told and f"http://localhost:{WS}" in told
        await server.send("hello")
        assert "hello" in str(await server.recv())
    for wrong in ({"Cookie": ""}, {"Cookie": place.cookie}, {"Origin": f"http://{place.host}"}):
        with pytest.raises(websockets.exceptions.InvalidHandshake):
            async with connected(place, right | wrong):
                pass


def connected(place: Place, headers: dict[str, str]) -> websockets.connect:
    """A name below `localhost` that this machine's resolver need not know."""
    port = int(place.address.rpartition(":")[2])
    more = {name: value for name, value in headers.items() if name != "Host"}
    return websockets.connect(
        f"ws://{headers['Host']}/echo",
        host="127.0.0.1",
        port=port,
        additional_headers=more,
        proxy=None,
    )


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")),
    reason="chromium is not installed",
)
async def test_a_page_in_a_real_browser(place: Place, tmp_path: Path) -> None:
    session = f"{SITE}/sessions/default"
    path = "/workspace/page_server.py"
    await place.api.put(f"{session}/files/content?path={path}", content=SERVER.encode())
    await place.api.post(
        f"{session}/processes", json={"command": f"exec python3 {path}", "id": "page"}
    )
    wait = {"for": "port", "port": PAGE_PORT, "timeout": 20}
    assert (await place.api.post(f"{SITE}/processes/page/wait", json=wait)).status_code == 200
    url = f"{place.address}{SITE}/ports/{PAGE_PORT}/proxy/?token={TOKEN}"
    async with browsing(url, tmp_path, "--remote-debugging-port=0"):
        wait = {"for": "log", "pattern": "^TOLD (.*)$", "regex": True, "timeout": 30}
        found = (await place.api.post(f"{SITE}/processes/page/wait", json=wait)).json()
    told = json.loads(found["match"][1])
    own = f"http://{place.host.replace(str(HTTP), str(PAGE_PORT))}"
    assert (told["origin"], told["href"]) == (own, f"{own}/")
    assert (told["storage"], told["cookie"], told["own"]) == ("kept", "mine=1", "404")
    for name in ("read", "sibling", "worker"):
        assert told[name].startswith("failed: "), (name, told[name])
    assert TOKEN not in json.dumps(told) and "cellshell" not in told["cookie"]
