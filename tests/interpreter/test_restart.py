"""The service dies, the boxes do not; another service takes them up with all that runs in them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from restarting import BASE, SANDBOX, Service, serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


pytestmark = pytest.mark.box
KILLS = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])


@KILLS
async def test_everything_is_still_there(service: Service, number: int) -> None:
    command = "export A=1; echo data > file; f() { echo f-$A; }; b=2; cd /tmp; (exit 3)"
    await service.exec(command)
    await service.code("x = [1]; import os; os.environ['B'] = 'b'")
    command = "read x; echo got $x; sleep 1000"
    started = await service.post(f"{BASE}/processes", id="tick", command=command)
    await service.restart(number)

    process = (await service.client.get(f"{SANDBOX}/processes/tick")).json()
    assert (process["status"], process["pid"]) == ("running", started["pid"])
    await service.client.post(f"{SANDBOX}/processes/tick/stdin", json={"data": "again\n"})
    wait = {"for": "log", "pattern": "got again", "timeout": 10}
    waited = await service.post(f"{SANDBOX}/processes/tick/wait", **wait)
    assert waited["line"] == "got again"
    result = await service.exec("echo $? $A $B $b $PWD; f; cat /workspace/file")
    assert (result["stdout"], result["notices"]) == ("3 1 b 2 /tmp\nf-1\ndata\n", [])
    result = await service.code("x.append(2); x, os.getcwd(), os.environ['A']")
    assert (result["text"], result["notices"]) == ("([1, 2], '/tmp', '1')", [])
    assert result["execution_count"] == 2
    await service.exec("export A=3; cd /usr")
    assert (await service.code("os.environ['A'], os.getcwd()"))["text"] == "('3', '/usr')"
    assert (await service.client.delete(f"{BASE}/contexts/python")).status_code == 204
    assert (await service.code("1"))["execution_count"] == 1


@KILLS
async def test_a_command_goes_on(service: Service, number: int) -> None:
    await service.exec("mkfifo go; sleep 900 &")
    command = "printf 'a\\303'; read -r x < go; printf '\\244'; export C=$x; echo end >&2; (exit 4)"
    await service.client.post(
        f"{BASE}/exec?detach=true", json={"command": command, "id": "long", "env": {"P": "1"}}
    )
    seen = await service.events("long", until="stdout")
    await service.restart(number)
    assert (await service.execution("long"))["state"] == "running"
    following = asyncio.create_task(service.events("long", after=int(seen[-1]["id"])))
    await service.post(f"{BASE}/processes", command="echo on > go")
    rest = await following
    assert [event["id"] for event in rest] == ["3", "4", "5"]
    assert {event["event"]: event["data"].get("data") for event in rest[:2]} == {
        "stdout": "ä",
        "stderr": "end\n",
    }
    result = await service.execution("long")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("aä", "end\n", 4)
    assert result["environment_changes"]["set"] == ["C"]
    assert (await service.exec("echo $C-${P-}; jobs %1"))["stdout"].startswith("on-\n")


async def test_a_command_that_ended_meanwhile(service: Service) -> None:
    """Its report and its output wait in their pipes."""
    await service.exec("mkfifo go")
    options = {"id": "gone", "timeout": 60}
    command = "echo 0; read x < go; seq 5000; echo err >&2; cd /tmp; D=4; export D"
    await service.client.post(f"{BASE}/exec?detach=true", json={"command": command, **options})
    await service.events("gone", until="stdout")
    again = {"command": command, **options}
    await service.post(f"{BASE}/processes", command="exec 3> go; sleep 0.5; echo x >&3")
    await service.stop()
    await asyncio.sleep(1)  # the command has ended then, or is about to: both must do
    await service.start()
    result = await service.post(f"{BASE}/exec", **again)
    assert result["stdout"] == "".join(f"{n}\n" for n in range(5001))
    assert (result["stderr"], result["exit_code"], result["cwd"]) == ("err\n", 0, "/tmp")
    assert (await service.exec("echo $D $PWD"))["stdout"] == "4 /tmp\n"


@KILLS
async def test_a_cell_goes_on(service: Service, number: int) -> None:
    code = (
        "import os, sys, time\n"
        "print('one', flush=True)\n"
        "while not os.path.exists('/workspace/go'): time.sleep(0.01)\n"
        "for i in range(3000): print(i)\n"
        "os.environ['FROM'] = 'cell'\n"
        "y = 7\n"
        "y * 6"
    )
    await service.code("1")
    await service.client.post(f"{BASE}/code?detach=true", json={"code": code, "id": "cell"})
    seen = await service.events("cell", until="output")
    await service.stop(number)
    [workspace] = Path(service.home).glob("sandboxes/*/workspace")
    (workspace / "go").touch()
    await service.start()
    rest = await service.events("cell", after=int(seen[-1]["id"]))
    assert [int(event["id"]) for event in rest] == list(range(3, 3 + len(rest)))
    result = await service.execution("cell")
    lines = ["one", *map(str, range(3000))]
    assert result["stdout"].splitlines() == lines
    told = [event["data"]["output"].get("text", "") for event in seen[1:] + rest[:-1]]
    assert "".join(told).splitlines() == lines
    assert (result["text"], result["execution_count"], result["notices"]) == ("42", 2, [])
    assert result["environment_changes"]["set"] == ["FROM"]
    assert (await service.exec("echo $FROM"))["stdout"] == "cell\n"
    assert (await service.code("y"))["text"] == "7"


async def test_what_waited_runs(service: Service) -> None:
    await service.exec("mkfifo go")
    post = service.client.post
    commands = [("first", "read x < go; echo $x"), ("second", "echo second; pwd")]
    for id, command in commands:
        body = {"command": command, "id": id, "cwd": "/workspace"}
        assert (await post(f"{BASE}/exec?detach=true", json=body)).status_code == 202
    waits = "import os\nwhile not os.path.exists('/workspace/go2'): pass"
    for id, code in [("cell1", waits), ("cell2", "2 + 2")]:
        await post(f"{BASE}/code?detach=true", json={"code": code, "id": id})
    await service.events("first", until="started")
    await service.events("cell1", until="started")
    await service.restart()
    await service.post(f"{BASE}/processes", command="touch go2; echo one > go")
    assert (await service.events("second"))[-1]["event"] == "done"
    assert (await service.execution("first"))["stdout"] == "one\n"
    assert (await service.execution("second"))["stdout"] == "second\n/workspace\n"
    await service.events("cell2")
    assert (await service.execution("cell2"))["text"] == "4"


async def test_time_runs_on(service: Service) -> None:
    body = {"command": "sleep 600 & wait", "id": "late", "timeout": 2}
    await service.client.post(f"{BASE}/exec?detach=true", json=body)
    body = {"code": "import time; time.sleep(600)", "id": "late-cell", "timeout": 2}
    await service.client.post(f"{BASE}/code?detach=true", json=body)
    for id in ("late", "late-cell"):
        await service.events(id, until="started")
    await service.restart()
    assert (await service.events("late"))[-1]["data"]["timed_out"]
    assert (await service.events("late-cell"))[-1]["data"]["status"] == "timeout"
    assert (await service.exec("echo fine"))["stdout"] == "fine\n"
    assert (await service.code("'fine'"))["text"] == "'fine'"


async def test_they_can_still_be_cancelled(service: Service) -> None:
    for id, route, body in (
        ("c", "exec", {"command": "sleep 600"}),
        ("k", "code", {"code": "while True: pass"}),
    ):
        await service.client.post(f"{BASE}/{route}?detach=true", json={**body, "id": id})
        await service.events(id, until="started")
    await service.restart()
    for id in ("c", "k"):
        answer = await service.client.delete(f"{SANDBOX}/executions/{id}")
        assert answer.status_code == 204
    assert (await service.execution("c"))["cancelled"]
    assert (await service.execution("k"))["status"] == "interrupted"


async def test_what_died_meanwhile_says_so(service: Service) -> None:
    await service.code("x = 1")
    pid = (await service.code("import os; os.getpid()"))["text"]
    body = {"code": "import time; time.sleep(600)", "id": "cell"}
    await service.client.post(f"{BASE}/code?detach=true", json=body)
    await service.events("cell", until="started")
    command = f"echo on; sleep 1; kill -9 {pid} $$"
    body = {"command": command, "id": "killer"}
    await service.client.post(f"{BASE}/exec?detach=true", json=body)
    await service.events("killer", until="stdout")
    await service.stop()
    await asyncio.sleep(1.5)
    await service.start()
    await service.events("cell")
    result = await service.execution("cell")
    assert (result["status"], result["exit"]["signal"]) == ("died", "SIGKILL")
    assert [notice["code"] for notice in result["notices"]] == ["output_lost"]
    await service.events("killer")
    result = await service.execution("killer")
    assert (result["exit_code"], result["shell_exited"]) == (137, True)
    result = await service.code("x")
    assert result["error"]["ename"] == "NameError"
    assert [notice["code"] for notice in result["notices"]] == ["context_restarted"]
    assert "shell_restarted" in [n["code"] for n in (await service.exec("true"))["notices"]]


async def test_late_output_finds_its_execution(service: Service) -> None:
    await service.exec("mkfifo go; (read x < go; echo late $x) &", id="job")
    thread = (
        "import os, threading, time\n"
        "def wait():\n"
        "    while not os.path.exists('/workspace/go2'): time.sleep(0.01)\n"
        "    print('late cell', flush=True)\n"
        "    open('/workspace/done', 'w').close()\n"
        "threading.Thread(target=wait).start()"
    )
    await service.code(thread, id="thread")
    await service.restart()
    await service.exec("touch go2; echo x > go; until [ -e done ]; do sleep 0.01; done")
    assert (await service.execution("job"))["stdout"] == "late x\n"
    outputs = (await service.execution("thread"))["outputs"]
    assert "".join(output["text"] for output in outputs) == "late cell\n"


async def test_another_language_goes_on(service: Service) -> None:
    await service.code("let x = 41", language="typescript")
    body = {
        "code": "console.log('here'); await new Promise((on) => setTimeout(on, 3000)); x += 1",
        "language": "typescript",
        "id": "ts",
    }
    await service.client.post(f"{BASE}/code?detach=true", json=body)
    await service.events("ts", until="output")
    await service.restart()
    [*_, last] = await service.events("ts")
    assert last["event"] in ("done", "error")
    if last["event"] == "done":
        assert "output_lost" in [notice["code"] for notice in last["data"]["notices"]]
    result = await service.code("x", language="typescript")
    assert (result["text"], result["notices"]) == ("42", []), last


async def test_a_stop_that_ends_sandboxes(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.exec("export A=1")
        await service.stop(signal.SIGTERM)
        await service.start("--on-stop", "destroy")
        assert (await service.exec("echo $A"))["notices"] == []
        assert "1 sandbox ended" in await service.stop(signal.SIGTERM)
        await service.start()
        result = await service.exec("echo $A")
        assert (result["stdout"], result["notices"][0]["code"]) == ("1\n", "sandbox_restarted")


async def test_two_services_on_one_home(service: Service) -> None:
    other = Service(service.home)
    with pytest.raises(AssertionError, match=f"the service with pid {service.process.pid}"):
        await other.start()
    os.kill(service.process.pid, 0)


async def test_a_network_policy_is_kept(service: Service) -> None:
    address = "/v1/sandboxes/listed"
    network = {"allow": ["example.org"]}
    await service.client.put(address, json={"network": network})
    try:
        await service.post(f"{address}/sessions/default/exec", command="true")
        await service.restart()
        assert (await service.client.get(address)).json()["network"] == network
        command = "curl -s http://example.net/"
        result = await service.post(f"{address}/sessions/default/exec", command=command)
        assert "'example.net' in `network.allow`" in result["stdout"]
        log = (await service.client.get(f"{address}/network/log")).json()
        assert [(each["host"], each["decision"]) for each in log] == [("example.net", "denied")]
        assert [each["number"] for each in log] == [1]
    finally:
        await service.client.delete(address)


def _line(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


async def test_limits_are_kept(service: Service) -> None:
    address = "/v1/sandboxes/limited"
    limits = {"memory_bytes": 256 << 20, "pids": 60, "disk_bytes": 64 << 20}
    made = await service.client.put(address, json={"limits": limits})
    if made.status_code == 400:
        pytest.skip(f"a limit is not installed here: {made.json()['detail']}")
    try:
        run = f"{address}/sessions/default/exec"
        await service.post(run, command="echo data > file; sleep 1000 &")
        await service.restart()
        used = (await service.client.get(f"{address}/usage")).json()
        assert {
            name: used[f"{name.removesuffix('_bytes')}_limit{'_bytes' * ('_b' in name)}"]
            for name in limits
        } == limits
        eat = "cat file; jobs -pr | wc -l; python3 -c 'bytearray(400 << 20)'"
        result = await service.post(run, command=eat)
        assert (result["stdout"], result["exit_code"]) == ("data\n1\n", 137)
        assert [notice["code"] for notice in result["notices"]] == ["memory_limit"]
    finally:
        await service.client.delete(address)


async def test_what_a_deletion_left_is_swept(tmp_path: Path) -> None:
    """The service is killed after it had forgotten a sandbox and before its box had ended."""
    async with serving(tmp_path) as service:
        await service.client.put("/v1/sandboxes/doomed")
        address = "/v1/sandboxes/doomed/sessions/default/exec"
        pid = "readlink /proc/self/ns/pid"
        await service.post(address, command="sleep 4321 &")
        assert (await service.post(address, command=pid))["stdout"].startswith("pid:")
        await service.stop()
        with closing(sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)) as base:
            base.execute("DELETE FROM sandboxes WHERE id = 'doomed'")
        (tmp_path / "sandboxes" / "stray" / "workspace").mkdir(parents=True)
        await service.start()
        lines = [_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert b"sleep\0004321\0" not in lines
        assert [path.name for path in (tmp_path / "sandboxes").iterdir()] == ["kept"]
        assert (await service.exec("echo on"))["stdout"] == "on\n"


async def test_gc_takes_nothing_that_may_be_taken_up(service: Service) -> None:
    await service.exec("f() { echo kept; }")
    refused = await collect_garbage(service)
    assert f"in use by the service with pid {service.process.pid}" in refused
    await service.stop(signal.SIGTERM)
    assert "1 sandbox left running" in await collect_garbage(service)
    await service.start()
    assert (await service.exec("f"))["stdout"] == "kept\n"
    await service.stop(signal.SIGTERM)
    assert "1 sandbox ended" in await collect_garbage(service, "--all")
    await service.start()
    result = await service.exec("f 2>/dev/null")
    assert result["notices"][0]["code"] == "sandbox_restarted"


async def collect_garbage(service: Service, *options: str) -> str:
    program = "import sys; from api.command import main; main()"
    command = [sys.executable, "-c", program, "gc", "--home", str(service.home), *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-2)
    said, _ = await process.communicate()
    return said.decode()
