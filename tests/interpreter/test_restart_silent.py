"""Kernels that do not answer when the service comes back: nobody waits but who wants them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interpreter.restarting import BASE, SANDBOX, Service, serving

IMPATIENT = """
import interpreter.inherited, interpreter.interpreter
interpreter.inherited.ANSWER_TIMEOUT = 1.0
interpreter.interpreter.PATIENCE = 0.5
"""
HOLDS_ALL = """
import ctypes, time
print('in')
time.sleep(0.2)  # what was printed goes out
ctypes.PyDLL(None).sleep(6)
print('out')
"""
SLEEPS = "import time; print('in'); time.sleep(600)"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, IMPATIENT) as service:
        yield service


async def kernel(service: Service, name: str) -> int:
    """A context of that name, which knows it; the kernel's pid."""
    await service.post(f"{BASE}/contexts", id=name)
    code = f"import os; name = {name!r}; print(os.getpid())"
    return int((await service.code(code, context=name))["stdout"])


async def begin(service: Service, context: str, code: str, **options: object) -> str:
    """Under way once it has printed."""
    path = f"{BASE}/code?detach=true"
    started = await service.post(path, code=code, context=context, **options)
    id = str(started["id"])
    await service.events(id, until="output")
    return id


async def state(service: Service, context: str) -> str:
    return str((await service.client.get(f"{BASE}/contexts/{context}")).json()["state"])


async def name_in(service: Service, context: str) -> str:
    answer = await service.code("name", context=context)
    return str(answer["text"])


async def test_others_do_not_wait(service: Service) -> None:
    stopped = await kernel(service, "stopped")
    await kernel(service, "holding")
    await kernel(service, "well")
    await service.exec(f"kill -STOP {stopped}")
    held = await begin(service, "holding", HOLDS_ALL)
    began = time.monotonic()
    await service.restart()
    assert await name_in(service, "well") == "'well'"
    assert time.monotonic() - began < 5
    assert await state(service, "stopped") == "starting"
    assert await state(service, "holding") == "busy"
    answer = await service.client.post(f"{BASE}/code", json={"code": "1", "context": "stopped"})
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "restart the context" in answer.json()["detail"]
    await service.restart()
    await service.exec(f"kill -CONT {stopped}")
    assert await name_in(service, "stopped") == "'stopped'"
    events = await service.events(held)
    outputs = [each["data"]["output"]["text"] for each in events if each["event"] == "output"]
    assert "".join(outputs) == "in\nout\n"
    assert (await service.execution(held))["status"] == "ok"
    assert await name_in(service, "holding") == "'holding'"


async def test_what_runs_in_it_can_be_ended(service: Service) -> None:
    contexts = ["timed", "cancelled", "deleted", "anew", "queued"]
    pids = [await kernel(service, name) for name in contexts]
    runs = {
        name: await begin(service, name, SLEEPS, timeout=3 if name == "timed" else None)
        for name in contexts[:-1]
    }
    await service.exec(f"kill -STOP {' '.join(map(str, pids))}")
    await service.restart()
    waits = await service.post(f"{BASE}/code?detach=true", code="1", context="queued", id="waits")
    assert waits["id"] == "waits"
    async with asyncio.timeout(20):
        for answer in await asyncio.gather(
            service.client.delete(f"{SANDBOX}/executions/{runs['cancelled']}"),
            service.client.delete(f"{SANDBOX}/executions/waits"),
            service.client.delete(f"{BASE}/contexts/deleted"),
            service.client.post(f"{BASE}/contexts/anew/restart"),
        ):
            assert answer.status_code < 300, answer.text
        ended = {name: await service.events(id) for name, id in runs.items()}
    assert {name: events[-1]["event"] for name, events in ended.items()} == {
        "timed": "done",
        "cancelled": "done",
        "deleted": "error",
        "anew": "done",
    }
    timed = await service.execution(runs["timed"])
    assert (timed["status"], timed["execution_count"], timed["stdout"]) == ("timeout", 2, "in\n")
    assert timed["duration"] < 15
    assert (await service.execution(runs["cancelled"]))["status"] == "interrupted"
    fresh = await service.code("'name' in globals()", context="timed")
    assert fresh["text"] == "False"
    assert "context_restarted" in [notice["code"] for notice in fresh["notices"]]
    assert (await service.code("1", context="anew"))["execution_count"] == 1


async def test_a_paused_one_is_taken_up_paused(service: Service) -> None:
    pid = await kernel(service, "stopped")
    await service.exec(f"kill -STOP {pid}")
    await service.post(f"{SANDBOX}/pause")
    await service.restart()
    assert (await service.client.get(SANDBOX)).json()["status"] == "paused"
    await service.exec(f"kill -CONT {pid}")
    assert await name_in(service, "stopped") == "'stopped'"
