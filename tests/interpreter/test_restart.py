"""The service dies, the boxes do not; another service takes them up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

READY = "import sys; sys.argv = ['cellshell', 'serve', '--port', '0', '--home', sys.argv[1]]\n" + (
    "from api.command import main; main()"
)


async def start(home: Path) -> tuple[asyncio.subprocess.Process, httpx.AsyncClient]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READY, str(home), stdout=-1, stderr=-2
    )
    assert process.stdout is not None
    async for line in process.stdout:
        for word in line.decode().split():
            if word.startswith("http://127.0.0.1:"):
                client = httpx.AsyncClient(base_url=word.strip(".,"), timeout=30, trust_env=False)
                return process, client
    raise AssertionError("the service did not start")


@pytest.mark.box
async def test_what_runs_outlives_the_service(tmp_path: Path) -> None:
    service, client = await start(tmp_path)
    base = "/v1/sandboxes/kept/sessions/default"
    assert (await client.put("/v1/sandboxes/kept")).status_code == 201
    await client.post(f"{base}/exec", json={"command": "export A=1; echo data > file; f() { :; }"})
    await client.post(f"{base}/code", json={"code": "x = 1"})
    started = await client.post(
        f"{base}/processes", json={"id": "tick", "command": "read x; echo got $x; sleep 1000"}
    )
    pid = started.json()["pid"]
    running = await client.post(
        f"{base}/exec?detach=true", json={"command": "sleep 1000", "id": "cut"}
    )
    assert running.status_code == 202
    service.send_signal(signal.SIGKILL)
    await service.wait()
    await client.aclose()

    service, client = await start(tmp_path)
    try:
        process = (await client.get("/v1/sandboxes/kept/processes/tick")).json()
        assert (process["status"], process["pid"]) == ("running", pid)
        await client.post("/v1/sandboxes/kept/processes/tick/stdin", json={"data": "again\n"})
        wait = {"for": "log", "pattern": "got again", "timeout": 10}
        waited = await client.post("/v1/sandboxes/kept/processes/tick/wait", json=wait)
        assert waited.json()["line"] == "got again"
        command = {"command": "echo $A; cat file; f"}
        result = (await client.post(f"{base}/exec", json=command)).json()
        assert result["stdout"] == "1\ndata\n"
        assert "shell_restarted" in [notice["code"] for notice in result["notices"]]
        contexts = (await client.get(f"{base}/contexts")).json()
        assert [context["id"] for context in contexts] == ["python"]
        cut = await client.get("/v1/sandboxes/kept/executions/cut")
        assert cut.status_code == 503
        assert cut.json()["code"] == "not_ready"
    finally:
        assert (await client.delete("/v1/sandboxes/kept")).status_code == 204
        await client.aclose()
        service.send_signal(signal.SIGTERM)
        await service.wait()
    with pytest.raises(FileNotFoundError):
        os.stat(tmp_path / "sandboxes" / "kept")


async def test_two_services_on_one_home(tmp_path: Path) -> None:
    service, client = await start(tmp_path)
    await client.aclose()
    with pytest.raises(AssertionError, match="did not start"):
        await start(tmp_path)
    service.send_signal(signal.SIGTERM)
    await service.wait()
