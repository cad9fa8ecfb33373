"""Commands through the doors: results, streams, callers that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

EVENTS = {"Accept": "text/event-stream"}


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Each event of a stream as id, name and data; heartbeats as they are."""
    fields: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line.startswith(":"):
            yield {"event": "heartbeat"}
        elif name:
            fields[name] = json.loads(value) if name in ("id", "data") else value
        elif fields:
            yield fields
            fields = {}


async def follow(http: httpx.AsyncClient, method: str, path: str, **options: Any) -> list[Any]:
    async with http.stream(method, path, **options) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        return [event async for event in events(answer) if event["event"] != "heartbeat"]


async def finished(http: httpx.AsyncClient, sandbox: str, id: str) -> Any:
    """The result of an execution, once its terminal event has come."""
    await follow(http, "GET", f"{sandbox}/executions/{id}/events")
    return (await http.get(f"{sandbox}/executions/{id}")).json()


async def test_a_command_answers_json(http: httpx.AsyncClient, session: str) -> None:
    answer = await http.post(f"{session}/exec", json={"command": "echo hi; echo no >&2; (exit 3)"})
    result = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (result["exit_code"], result["stdout"], result["stderr"]) == (3, "hi\n", "no\n")
    assert "state" not in result


async def test_a_command_streams(http: httpx.AsyncClient, session: str) -> None:
    body = {"command": "echo one; read; echo two"}
    found = await follow(http, "POST", f"{session}/exec", json=body, headers=EVENTS)
    assert [event["id"] for event in found] == list(range(1, len(found) + 1))
    assert found[0]["event"] == "started" and found[-1]["event"] == "done"
    text = "".join(event["data"]["data"] for event in found if event["event"] == "stdout")
    assert text == "one\ntwo\n"
    assert found[-1]["data"]["exit_code"] == 0 and "stdout" not in found[-1]["data"]


async def test_silence_is_broken_and_the_first_byte_does_not_wait(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    body = {"command": "echo first; mkfifo f; read < f; echo last"}
    seen = []
    async with http.stream("POST", f"{session}/exec", json=body, headers=EVENTS) as answer:
        async for event in events(answer):
            seen.append(event["event"])
            if event["event"] == "heartbeat" and seen.count("heartbeat") == 1:
                write = await http.put(f"{session}/files/content?path=go", content=b"x")
                assert write.status_code == 200
                opened = {"command": "echo > f", "id": "opens-f"}
                other = await http.post(f"{sandbox}/sessions", json={"id": "other"})
                assert other.status_code == 201
                await http.post(f"{sandbox}/sessions/other/exec", json=opened)
    assert seen.index("stdout") < seen.index("heartbeat") < seen.index("done")


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_what_is_known_beforehand_is_a_plain_answer(
    http: httpx.AsyncClient, session: str, headers: dict[str, str]
) -> None:
    for body, code in [
        ({"command": "x", "cwd": "/no/such/place"}, "invalid_cwd"),
        ({"command": "x", "timeout": 0}, "invalid_request"),
        ({"command": "x", "stdin": "?", "encoding": "base64"}, "invalid_request"),
        ({}, "invalid_request"),
    ]:
        answer = await http.post(f"{session}/exec", json=body, headers=headers)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code


async def test_code_and_language_together_are_refused(
    http: httpx.AsyncClient, session: str
) -> None:
    for body, code in [
        ({"code": "1", "language": "python", "context": "python"}, "language_and_context"),
        ({"code": "1", "language": "cobol"}, "language_unknown"),
        ({"code": "1", "context": "nope"}, "context_not_found"),
    ]:
        assert (await http.post(f"{session}/code", json=body)).json()["code"] == code


async def test_a_detached_command_goes_on(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    body = {"command": "echo done", "id": "detached"}
    answer = await http.post(f"{session}/exec?detach=true", json=body, headers=EVENTS)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{sandbox}/executions/detached"
    assert answer.json()["id"] == "detached"
    result = await finished(http, sandbox, "detached")
    assert (result["state"], result["stdout"]) == ("done", "done\n")


async def test_an_id_runs_once(http: httpx.AsyncClient, session: str) -> None:
    body = {"command": "echo $RANDOM$RANDOM", "id": "once"}
    first, second = [await http.post(f"{session}/exec", json=body) for _ in range(2)]
    assert first.json() == second.json()
    other = await http.post(f"{session}/exec", json={**body, "command": "echo 1"})
    assert (other.status_code, other.json()["code"]) == (409, "execution_mismatch")


async def test_a_stream_is_taken_up_where_it_was(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    await http.post(f"{session}/exec", json={"command": "echo a; echo b >&2", "id": "replayed"})
    path = f"{sandbox}/executions/replayed/events"
    whole = await follow(http, "GET", path)
    last = whole[-1]["id"]
    assert await follow(http, "GET", f"{path}?after=1") == whole[1:]
    assert await follow(http, "GET", f"{path}?after=1", headers={"Last-Event-ID": "2"}) == whole[2:]
    for after in (last, last + 100):
        assert await follow(http, "GET", f"{path}?after={after}") == whole[-1:]
    for after in ("x", "-1", "9" * 30):
        assert (await http.get(f"{path}?after={after}")).status_code == 422


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_a_caller_who_goes_away_cancels(
    http: httpx.AsyncClient, sandbox: str, session: str, headers: dict[str, str]
) -> None:
    body = {"command": "touch started; mkfifo -m 600 never; read < never"}
    watch = f"{session}/files/watch?path=."
    async with http.stream("GET", watch) as watched:
        seen = events(watched)
        await anext(seen)
        call = asyncio.create_task(http.post(f"{session}/exec", json=body, headers=headers))
        async for event in seen:
            if event["event"] == "created" and event["data"]["path"].endswith("/never"):
                break
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
    # The shell of a session runs one command at a time: it is free again.
    next_one = await http.post(f"{session}/exec", json={"command": "rm started never; echo free"})
    assert next_one.json()["stdout"] == "free\n"


async def test_a_caller_with_an_id_may_go_away(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    body = {"command": "mkfifo kept; read < kept; echo survived", "id": "survivor"}
    async with http.stream("POST", f"{session}/exec", json=body, headers=EVENTS) as answer:
        assert (await anext(events(answer)))["event"] == "started"
    free = {"command": "until [ -p kept ]; do :; done; echo > kept"}
    await http.put(sandbox)
    await http.post(f"{sandbox}/sessions", json={"id": "second"})
    await http.post(f"{sandbox}/sessions/second/exec", json=free)
    assert (await finished(http, sandbox, "survivor"))["stdout"] == "survived\n"


async def test_a_cancelled_command_answers_its_caller(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    body = {"command": "echo begun; read < <(exec sleep infinity)", "id": "cancelled"}
    async with http.stream("POST", f"{session}/exec", json=body, headers=EVENTS) as answer:
        async for event in events(answer):
            if event["event"] == "stdout":
                break
        delete = await http.delete(f"{sandbox}/executions/cancelled")
    assert delete.status_code == 204
    result = (await http.post(f"{session}/exec", json=body)).json()
    assert (result["cancelled"], result["exit_code"], result["stdout"]) == (True, None, "begun\n")
    again = await http.delete(f"{sandbox}/executions/cancelled")
    assert (again.status_code, again.json()["code"]) == (409, "execution_over")


async def test_metrics_count_executions(http: httpx.AsyncClient, session: str) -> None:
    await http.post(f"{session}/exec", json={"command": "true"})
    await http.post(f"{session}/exec", json={"command": "false"})
    text = (await http.get("/metrics")).text
    for outcome in ("ok", "error"):
        assert f'cellshell_execution_seconds_count{{kind="exec",outcome="{outcome}"}}' in text


async def test_code_answers_and_streams(http: httpx.AsyncClient, session: str) -> None:
    first = (await http.post(f"{session}/code", json={"code": "x = 6 * 7\nx"})).json()
    assert (first["status"], first["text"], first["execution_count"]) == ("ok", "42", 1)
    body = {"code": "print('é'); x / 0"}
    found = await follow(http, "POST", f"{session}/code", json=body, headers=EVENTS)
    assert [event["event"] for event in found] == ["started", "output", "output", "done"]
    assert found[1]["data"]["output"] == {
        "output_type": "stream",
        "name": "stdout",
        "text": "é\n",
    }
    assert found[-1]["data"]["error"]["ename"] == "ZeroDivisionError"
    assert "outputs" not in found[-1]["data"]


async def test_contexts_through_the_door(http: httpx.AsyncClient, session: str) -> None:
    contexts = f"{session}/contexts"
    made = await http.post(contexts, json={"id": "mine", "env": {"ONLY": "here"}})
    assert (made.status_code, made.json()["language"]) == (201, "python")
    again = await http.post(contexts, json={"id": "mine"})
    assert (again.status_code, again.json()["code"]) == (409, "context_exists")
    run = {"code": "import os\nn = [1, 2]\nos.environ['ONLY']", "context": "mine"}
    assert (await http.post(f"{session}/code", json=run)).json()["text"] == "'here'"
    names = [item["name"] for item in (await http.get(f"{contexts}/mine/variables")).json()]
    assert "n" in names
    where = {"code": "os.getc", "cursor_pos": 10**15}
    completed = (await http.post(f"{contexts}/mine/complete", json=where)).json()
    assert "getcwd" in completed["matches"]
    assert (await http.post(f"{contexts}/mine/inspect", json=where)).status_code == 200
    assert (await http.post(f"{contexts}/mine/interrupt")).status_code == 202
    assert (await http.post(f"{contexts}/mine/restart")).json()["execution_count"] == 0
    assert (await http.delete(f"{contexts}/mine")).status_code == 204
    assert (await http.get(f"{contexts}/mine")).json()["code"] == "context_not_found"


async def test_processes_through_the_door(
    http: httpx.AsyncClient, sandbox: str, session: str
) -> None:
    started = await http.post(
        f"{session}/processes", json={"id": "p", "command": "read line; echo got $line; cat"}
    )
    assert (started.status_code, started.json()["status"]) == (201, "running")
    process = f"{sandbox}/processes/p"
    empty = await http.post(f"{process}/stdin", json={})
    assert (empty.status_code, empty.json()["code"]) == (422, "invalid_request")
    await http.post(f"{process}/stdin", json={"data": "hello\n"})
    waited = await http.post(
        f"{process}/wait", json={"for": "log", "pattern": "got (.*)", "regex": True}
    )
    assert waited.json()["match"] == ["got hello", "hello"]
    late = await http.post(f"{process}/wait", json={"for": "exit", "timeout": 0.05})
    assert (late.status_code, late.json()["code"]) == (408, "wait_timeout")
    await http.post(f"{process}/stdin", json={"close": True})
    whole = await follow(http, "GET", f"{process}/logs", headers=EVENTS)
    assert [event["event"] for event in whole] == ["stdout", "exit"]
    assert whole[-1]["data"]["process"]["exit_code"] == 0
    one = await follow(http, "GET", f"{process}/logs?stream=stderr", headers=EVENTS)
    assert [event["event"] for event in one] == ["exit"]
    assert (await http.get(f"{process}/logs?tail=1")).json()["stdout"] == "got hello\n"
    over = await http.post(f"{process}/signal", json={"signal": "SIGINT"})
    assert (over.status_code, over.json()["code"]) == (409, "process_exited")
    assert (await http.delete(f"{sandbox}/processes")).json() == {"killed": 0}
