"""Boxes without namespaces outlive the service, and the next one takes them up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_tier import passable_directory
from restarting import BASE, SANDBOX, Service, serving

from interpreter.errors import NotReady
from interpreter.isolation import probe
from interpreter.settings import Settings

pytestmark = pytest.mark.box


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("CELLSHELL_ISOLATION", "process")
    with passable_directory() as directory:
        try:
            await probe(Settings(home=directory / "home"))
        except NotReady as error:
            pytest.skip(error.message)
        async with serving(directory / "home") as service:
            yield service


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
async def test_everything_is_still_there(service: Service, number: int) -> None:
    await service.exec("export A=1; f() { echo f-$A; }; b=2; mkfifo go; (exit 3)")
    await service.code(
        "import os, socket; x = [1]; os.environ['B'] = 'b'\n"
        "s = socket.create_server(('127.0.0.1', 0)); port = s.getsockname()[1]"
    )
    command = "read x; echo got $x; sleep 1000"
    started = await service.post(f"{BASE}/processes", id="tick", command=command)
    running = {"command": "read -r x < go; echo $x", "id": "long"}
    await service.client.post(f"{BASE}/exec?detach=true", json=running)
    await service.restart(number)

    info = (await service.client.get(SANDBOX)).json()
    assert info["isolation"]["tier"] == "process"
    process = (await service.client.get(f"{SANDBOX}/processes/tick")).json()
    assert (process["status"], process["pid"]) == ("running", started["pid"])
    await service.client.post(f"{SANDBOX}/processes/tick/stdin", json={"data": "again\n"})
    waited = await service.post(
        f"{SANDBOX}/processes/tick/wait", **{"for": "log", "pattern": "got again", "timeout": 10}
    )
    assert waited["line"] == "got again"
    result = await service.code(
        "x.append(2); c = socket.create_connection(('127.0.0.1', port)); x, os.environ['A']"
    )
    assert (result["text"], result["notices"]) == ("([1, 2], '1')", [])
    await service.code("with open('go', 'w') as go: go.write('on\\n')")
    async with asyncio.timeout(10):
        events = await service.events("long")
    assert [each["data"]["data"] for each in events if each["event"] == "stdout"] == ["on\n"]
    result = await service.exec("echo $A $B $b; f")
    assert (result["stdout"], result["notices"]) == ("1 b 2\nf-1\n", [])


async def test_the_way_out_is_there_again(service: Service) -> None:
    created = await service.client.put("/v1/sandboxes/out", json={"network": "open"})
    assert created.status_code == 201, created.text
    ask = "curl -sS -o /dev/null -w '%{http_code}' http://10.1.2.3/"
    path = "/v1/sandboxes/out/sessions/default/exec"
    assert (await service.post(path, command=ask))["stdout"] == "403"
    await service.restart()
    assert (await service.post(path, command=ask))["stdout"] == "403"
    assert (await service.client.delete("/v1/sandboxes/out")).status_code == 204


async def test_a_box_that_was_taken_up_ends_as_a_whole(service: Service) -> None:
    await service.post(f"{BASE}/processes", id="deaf", command="trap '' TERM; sleep 1000")
    await service.code("1")
    shell = (await service.exec("echo $PPID $$"))["stdout"].split()
    await service.restart()
    supervisor = int(_stat(int(shell[0]))[1])
    assert (await service.client.delete(SANDBOX)).status_code == 204
    for pid in (*map(int, shell), supervisor):
        assert not Path(f"/proc/{pid}").exists() or _stat(pid)[0] == "Z"
    assert (await service.client.put(SANDBOX)).status_code == 201


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
