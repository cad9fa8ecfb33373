"""A hostile page, served from a sandbox and shown by a real browser, gets nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from api.serving import serving
from interpreter.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "s3cret-token"
SITE = "/v1/sandboxes/site"
PORT = 8090
pytestmark = [
    pytest.mark.box,
    pytest.mark.timeout(60),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
PAGE = """<!doctype html><title>hostile</title>
<script src="own.js"></script><script type="module" src="module.js"></script>
<iframe name="hole"></iframe>
<form id="form" target="hole" method="post" enctype="text/plain" action="/v1/sandboxes">
<input name='{"id": "by-form", "labels": {"a": "' value='"}}'></form>
<script>
const told = {href: location.href, origin: self.origin, own: self.own};
const attempt = async (name, act) => {
  try { told[name] = String(await act()); } catch (error) { told[name] = "failed: " + error.name; }
};
const after = (target, good, bad) => new Promise((resolve) => {
  target["on" + good] = () => resolve(good);
  target["on" + bad] = () => resolve(bad);
});
const api = "/v1/sandboxes";
const plain = {method: "POST", mode: "no-cors", credentials: "include",
               headers: {"Content-Type": "text/plain"}, body: '{"id": "by-fetch"}'};
const frame = () => Object.assign(document.createElement("iframe"), {src: "/v1/languages"});
const add = (element) => document.body.appendChild(element);
(async () => {
  await attempt("mine", async () => (await fetch("data.json")).json().then((data) => data.fine));
  await attempt("posted", async () => (await fetch("anything", {method: "POST", body: "{}",
    headers: {"Content-Type": "application/json"}})).status);
  await attempt("read", async () => (await fetch(api, {credentials: "include"})).text());
  await attempt("health", async () => (await fetch("/health")).text());
  await attempt("create", async () => (await fetch(api, plain)).type);
  await attempt("up", async () => (await fetch("../../../proxy/", {method: "POST"})).text());
  await attempt("socket", () => after(new WebSocket(
    `ws://${location.host}/v1/sandboxes/site/sessions/default/terminal`), "open", "error"));
  await attempt("events", () => after(new EventSource(api), "open", "error"));
  await attempt("framed", async () => {
    const element = add(frame());
    await after(element, "load", "error");
    return element.contentDocument && element.contentDocument.body.innerText;
  });
  await attempt("script", () => after(add(Object.assign(
    document.createElement("script"), {src: "/v1/languages"})), "load", "error"));
  await attempt("opened", async () => window.open("/v1/languages"));
  await attempt("opener", async () => window.opener);
  await attempt("storage", async () => localStorage.length);
  await attempt("cookie", async () => document.cookie = "a=1");
  await attempt("worker", async () => navigator.serviceWorker.register("own.js"));
  document.getElementById("form").submit();
  await new Promise((resolve) => setTimeout(resolve, 500));
  told.module = self.module;  // one such script comes from the server by way of CORS
  await fetch("told", {method: "POST", body: JSON.stringify(told)});
})();
</script>
"""
FILE = """<!doctype html><pre id="told"></pre><script>
let told = self.origin;
try {
  const asked = new XMLHttpRequest();
  asked.open("GET", "/v1/sandboxes", false);
  asked.send();
  told += asked.responseText;
} catch (error) { told += " failed: " + error.name; }
document.getElementById("told").textContent = told;
</script>
"""
SERVER = """
import http.server, os, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/told":
            print("TOLD", body.decode(), flush=True)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
os.chdir("/workspace/site")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
FILES = {
    "index.html": PAGE,
    "file.html": FILE,
    "own.js": "self.own = 'ran';",
    "module.js": "self.module = 'ran';",
    "data.json": '{"fine": true}',
    "serve.py": SERVER,
}


@pytest_asyncio.fixture(scope="module", params=[None, TOKEN], ids=["loopback", "token"])
async def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), token=request.param, on_stop="destroy"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(settings, listener):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                base_url=url, headers=headers, timeout=30, trust_env=False
            ) as client:
                await serve_page(client)
                yield client
                await client.delete(SITE)


async def serve_page(client: httpx.AsyncClient) -> None:
    session = f"{SITE}/sessions/default"
    await client.put(SITE)
    for name, text in FILES.items():
        address = f"{session}/files/content?path=/workspace/site/{name}"
        assert (await client.put(address, content=text.encode())).status_code < 300
    body = {"command": f"exec python3 /workspace/site/serve.py {PORT}", "id": "site"}
    await client.post(f"{session}/processes", json=body)
    wait = {"for": "port", "port": PORT, "timeout": 20}
    assert (await client.post(f"{SITE}/processes/site/wait", json=wait)).status_code == 200


@asynccontextmanager
async def browsing(
    url: str, profile: Path, *switches: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    assert CHROMIUM
    always = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --no-proxy-server "
        f"--user-data-dir={profile}"
    )
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *always.split(), *switches, url), stdout=-1, stderr=-3, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def test_a_hostile_page(service: httpx.AsyncClient, tmp_path: Path) -> None:
    url = f"{service.base_url}{SITE}/ports/{PORT}/proxy/?page=1&token={TOKEN}"
    async with browsing(url, tmp_path, "--remote-debugging-port=0"):
        wait = {"for": "log", "pattern": "^TOLD (.*)$", "regex": True, "timeout": 30}
        found = (await service.post(f"{SITE}/processes/site/wait", json=wait)).json()
    told = json.loads(found["match"][1])
    assert TOKEN not in json.dumps(told)
    assert f"/ports/{PORT}/open/" in told["href"]
    assert told["origin"] == "null"
    works = {name: told[name] for name in ("own", "module", "mine", "posted")}
    assert works == {"own": "ran", "module": "ran", "mine": "true", "posted": "200"}
    for name in ("read", "health", "up", "worker", "storage", "cookie"):
        assert told[name].startswith("failed: "), (name, told[name])
    assert told["socket"] == told["events"] == told["script"] == "error"
    assert told["framed"] == told["opened"] == told["opener"] == "null"
    assert told["create"] in ("opaque", "failed: TypeError")
    listed = (await service.get("/v1/sandboxes")).json()
    assert [each["id"] for each in listed] == ["site"]


async def test_a_hostile_file(service: httpx.AsyncClient, tmp_path: Path) -> None:
    address = f"{SITE}/sessions/default/files/content?path=/workspace/site/file.html"
    url = f"{service.base_url}{address}&token={TOKEN}"
    async with browsing(url, tmp_path, "--dump-dom") as process:
        assert process.stdout
        page = (await process.stdout.read()).decode()
    assert '<pre id="told">null failed: NetworkError</pre>' in page
