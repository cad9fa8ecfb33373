"""Two or more things at once, and clients that go away in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import Run


async def reach(http: httpx.AsyncClient, execution: str, event: str) -> None:
    """Until an execution has put out an event of that name."""
    async with http.stream("GET", f"{execution}/events") as answer:
        async for line in answer.aiter_lines():
            if line == f"event: {event}":
                return


async def trickle() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"x" * 10
        await asyncio.sleep(0)


async def test_twenty_sessions(http: httpx.AsyncClient, sandbox: str, exec: Run) -> None:
    async def one(number: int) -> str:
        body = {"id": f"s{number}", "cwd": f"d{number}", "env": {"N": str(number)}}
        assert (await http.post(f"{sandbox}/sessions", json=body)).status_code == 201
        at = f"{sandbox}/sessions/s{number}"
        await exec("export M=$N; mkdir in; cd in", at=at)
        return str((await exec("echo $M $PWD", at=at))["stdout"])

    said = await asyncio.gather(*map(one, range(20)))
    assert said == [f"{number} /workspace/d{number}/in\n" for number in range(20)]


@pytest.mark.parametrize(
    "what", ["sessions", "sessions/default/contexts", "sessions/default/processes"]
)
async def test_one_of_many_makes_it(http: httpx.AsyncClient, sandbox: str, what: str) -> None:
    body = {"id": "race"} | ({"command": "true"} if "processes" in what else {})
    answers = await asyncio.gather(*(http.post(f"{sandbox}/{what}", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def test_retried_command_runs_once(exec: Run) -> None:
    answers = await asyncio.gather(*(exec("echo >> runs; wc -l < runs", id="o") for _ in range(5)))
    assert {answer["stdout"] for answer in answers} == {"1\n"}
    assert (await exec("other", id="o"))["code"] == "execution_mismatch"


async def test_cancel_while_queued_and_while_running(
    http: httpx.AsyncClient, sandbox: str, exec: Run
) -> None:
    commands = {"running": "cd /usr; export C=1; sleep 60", "queued": "touch never"}
    for id, command in commands.items():
        body = {"command": command, "id": id}
        await http.post(f"{sandbox}/sessions/default/exec?detach=true", json=body)
    await reach(http, f"{sandbox}/executions/running", "started")
    for id in ("queued", "running"):
        assert (await http.delete(f"{sandbox}/executions/{id}")).status_code == 204
    ended = [await exec(command, id=id) for id, command in commands.items()]
    assert [(end["cancelled"], end["exit_code"]) for end in ended] == [(True, None)] * 2
    again = await http.delete(f"{sandbox}/executions/queued")
    assert again.json()["code"] == "execution_over"
    after = await exec("pwd; ls /workspace/never; cd /workspace")
    assert after["stdout"] in ("/usr\n", "/workspace\n")


@pytest.mark.parametrize("keeps", [False, True])
async def test_client_gone(http: httpx.AsyncClient, sandbox: str, exec: Run, keeps: bool) -> None:
    """It cancels what it asked for, unless that has an id."""
    name = f"gone-{keeps}"
    body = {"command": f"mkfifo {name}; echo on; read < {name}"} | ({"id": name} if keeps else {})
    headers = {"Accept": "text/event-stream"}
    async with http.stream(
        "POST", f"{sandbox}/sessions/default/exec", json=body, headers=headers
    ) as answer:
        async for line in answer.aiter_lines():
            if line == "event: stdout":
                break
    if keeps:
        let_go = f"{sandbox}/sessions/default/processes"
        await http.post(let_go, json={"command": f"echo > {name}"})
        done = await http.get(f"{sandbox}/executions/{name}/events")
        assert '"exit_code":0' in done.text
    assert (await exec("echo free", timeout=20))["stdout"] == "free\n"


async def test_environment_and_directory_change_during_uploads(
    http: httpx.AsyncClient, session: str, exec: Run
) -> None:
    uploads = [http.put(f"{session}/files/content?path=up{n}", content=trickle()) for n in range(3)]
    changes = [http.patch(f"{session}/env", json={f"V{n}": "1"}) for n in range(10)]
    answers = await asyncio.gather(*uploads, *changes, exec("cd /tmp"))
    places = {answer.json()["path"].rpartition("/")[0] for answer in answers[:3]}
    assert places <= {"/workspace", "/tmp"}
    assert [answer.json()["size"] for answer in answers[:3]] == [200] * 3
    assert (await exec("env | grep -c ^V.=1; cd /workspace"))["stdout"] == "10\n"


async def test_session_deleted_with_a_full_queue(http: httpx.AsyncClient, fresh: str) -> None:
    session = f"{fresh}/sessions/default"
    asked = [
        http.post(f"{session}/exec?detach=true", json={"command": "sleep 60", "id": f"q{n}"})
        for n in range(105)
    ]
    answers = await asyncio.gather(*asked)
    refused = [answer for answer in answers if answer.status_code != 202]
    assert {answer.json()["code"] for answer in refused} == {"queue_full"}
    assert all("retry-after" in answer.headers for answer in refused)
    assert (await http.delete(session)).status_code == 204
    for taken in answers:
        if taken.status_code == 202:
            events = await http.get(f"{taken.headers['location']}/events")
            assert events.text.count("event: error") == 1
    after = await http.post(f"{session}/exec", json={"command": "echo fresh"})
    assert after.json()["stdout"] == "fresh\n"


async def test_sandbox_destroyed_during_everything(http: httpx.AsyncClient, fresh: str) -> None:
    session = f"{fresh}/sessions/default"
    body = {"id": "p", "command": "while :; do echo x; done"}
    await http.post(f"{session}/processes", json=body)
    flood = {"command": "yes", "id": "flood"}
    await http.post(f"{session}/exec?detach=true", json=flood)
    await reach(http, f"{fresh}/executions/flood", "stdout")
    asked = [
        http.post(f"{session}/exec", json=flood),
        http.post(f"{session}/exec", json={"command": "echo queued"}),
        http.post(f"{session}/code", json={"code": "while 1: print(1)"}),
        http.post(f"{session}/contexts", json={}),
        http.post(f"{fresh}/processes/p/wait", json={"for": "exit"}),
        http.put(f"{session}/files/content?path=f", content=trickle()),
        http.get(f"{session}/files?path=/usr&recursive=true"),
    ]
    following = asyncio.ensure_future(http.get(f"{fresh}/executions/flood/events"))
    answers_later = asyncio.gather(*asked)
    assert (await http.delete(fresh)).status_code == 204
    answers = await answers_later
    assert all(answer.status_code in (200, 201, 404, 409, 503) for answer in answers)
    assert answers[0].json()["code"] in ("sandbox_deleted", "sandbox_not_found")
    assert (await following).status_code in (200, 404)
    assert (await http.get(fresh)).status_code == 404


async def test_sandbox_made_while_one_of_its_name_is_being_deleted(
    http: httpx.AsyncClient, fresh: str
) -> None:
    file = f"{fresh}/sessions/default/files/content?path=f"
    for _ in range(3):
        deleted, made = await asyncio.gather(http.delete(fresh), http.put(fresh))
        assert (deleted.status_code, made.status_code in (200, 201)) == (204, True)
        assert (await http.put(fresh)).status_code in (200, 201)
        assert (await http.put(file, content=b"kept")).status_code == 200
        assert (await http.get(file)).content == b"kept"


async def test_process_that_never_reads(
    http: httpx.AsyncClient, session: str, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpreter.process.STDIN_PATIENCE", 0.2)
    await http.post(f"{session}/processes", json={"command": "sleep 60", "id": "deaf"})
    body = {"data": "x" * 1_000_000}
    answer = await http.post(f"{sandbox}/processes/deaf/stdin", json=body)
    assert (answer.status_code, answer.json()["code"]) == (408, "wait_timeout")
    assert (await http.delete(f"{sandbox}/processes/deaf")).json()["status"] == "killed"
