"""Boxes that wait for a sandbox: what they become, and that nobody else's they ever are."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asking import python_of, shell_of
from restarting import serving

from interpreter import ready_boxes
from interpreter.errors import DiskFull, NotReady
from interpreter.interpreter import Interpreter
from interpreter.limit_models import Limits
from interpreter.models import CreateSandbox
from interpreter.premises import Premises
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

pytestmark = pytest.mark.box
LOOK = """
env | sort; id; ulimit -a; hostname; pwd; umask
stat -c '%A %u %g %n' / /* /workspace/* ~ ~/.[a-z]* /run/cellshell/* /tmp/*
grep -E 'Cap|NoNewPrivs|Seccomp' /proc/self/status; there=(/proc/[0-9]*); echo ${#there[@]}
cut -d' ' -f4- /proc/self/mountinfo
"""
IMPATIENT = "import interpreter.ready_boxes\ninterpreter.ready_boxes.LULL = 0.01\n"


@pytest_asyncio.fixture
async def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Interpreter]:
    monkeypatch.setattr(ready_boxes, "LULL", 0.01)
    settings = Settings(home=tmp_path, ready_boxes=1, spare_kernels=0, fork_server=False)
    async with Interpreter(settings) as interpreter:
        await until(lambda: interpreter.ready_boxes.waiting == 1)
        yield interpreter
    assert not any(path.name.startswith(".") for path in (tmp_path / "sandboxes").iterdir())


async def until(found: Callable[[], bool]) -> None:
    for _ in range(2000):
        if found():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


async def seen(sandbox: Sandbox) -> str:
    """What there is to be seen in it, but for what no two sandboxes share."""
    result = await shell_of(sandbox.session("default"))(LOOK)
    text = result.stdout.replace(str(sandbox._plan.uid), "uid")
    for place in (sandbox.directory, sandbox.directory.with_name(f".{sandbox.number}")):
        text = text.replace(str(place), "files")
    return text.replace(str(sandbox._plan.run), "run")


async def test_it_is_like_one_that_was_made(own: Interpreter) -> None:
    made = await own.create_sandbox(CreateSandbox(network="none", limits=Limits(pids=500)))
    assert (own.ready_boxes.hits, own.ready_boxes.misses) == (0, 0)
    taken = await own.create_sandbox(CreateSandbox(id="taken", env={"A": "b"}))
    assert (own.ready_boxes.hits, own.ready_boxes.misses) == (1, 0)
    assert taken.directory.is_dir()
    assert not taken.directory.with_name(f".{taken.number}").exists()
    again = (await seen(taken)).replace("A=b\n", "")
    first, second = (await seen(made)).splitlines(), again.splitlines()
    assert [line for line in first if line not in second] == []
    assert len(first) == len(second)
    assert (await python_of(taken.session("default"))("import os; os.environ['A']")).text == "'b'"
    usage = await taken.usage()
    assert usage.disk_bytes is not None
    assert taken._plan.uid is None or taken._plan.uid == own.settings.uid_base + taken.number


async def test_each_is_handed_out_once(own: Interpreter) -> None:
    sandboxes = await asyncio.gather(*(own.create_sandbox(CreateSandbox()) for _ in range(3)))
    assert (own.ready_boxes.hits, own.ready_boxes.misses) == (1, 2)
    assert len({sandbox.number for sandbox in sandboxes}) == 3
    boxes = [await sandbox.box() for sandbox in sandboxes]
    assert len({box.host_pid for box in boxes}) == 3
    for number, sandbox in enumerate(sandboxes):
        await shell_of(sandbox.session("default"))(f"echo {number} >mine")
    found = [(each.directory / "workspace" / "mine").read_text() for each in sandboxes]
    assert found == ["0\n", "1\n", "2\n"]
    await until(lambda: own.ready_boxes.waiting == 1)


@pytest.mark.parametrize(
    "unusual", [CreateSandbox(network="open"), CreateSandbox(limits=Limits(memory_bytes=1 << 30))]
)
async def test_others_are_made(own: Interpreter, unusual: CreateSandbox) -> None:
    await own.create_sandbox(unusual)
    assert (own.ready_boxes.hits, own.ready_boxes.misses) == (0, 0)
    assert own.ready_boxes.waiting == 1


async def test_one_that_has_ended_is_nobodys(own: Interpreter) -> None:
    ready = own.ready_boxes._ready[0]
    assert ready.box
    os.kill(ready.box.host_pid, signal.SIGKILL)
    await asyncio.shield(ready.box.ended)
    sandbox = await own.create_sandbox(CreateSandbox())
    assert (own.ready_boxes.hits, own.ready_boxes.misses) == (0, 1)
    assert (await shell_of(sandbox.session("default"))("echo hi")).stdout == "hi\n"
    await until(lambda: not ready.premises.directory.exists())


async def test_none_where_memory_is_short(
    own: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready_boxes, "memory_available", lambda: 0.01)
    own.ready_boxes._most = 2
    own.ready_boxes.refill()
    await until(lambda: own.ready_boxes.waiting == 0)


async def test_what_cannot_be_made_is_told_once(
    own: Interpreter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def build(*_: Any) -> None:
        raise NotReady("no box today")

    await own.create_sandbox(CreateSandbox())
    monkeypatch.setattr(Premises, "build", build)
    for _ in range(3):
        own.ready_boxes.refill()
        await until(lambda: own.ready_boxes._making is not None)
        await until(lambda: own.ready_boxes._making is None)
    assert caplog.text.count("no box today") == 1
    assert own.ready_boxes.waiting == 0


async def test_one_whose_sandbox_cannot_be_registered(
    own: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = own.ready_boxes._ready[0]

    def add_sandbox(*_: Any) -> int:
        raise DiskFull("no room")

    monkeypatch.setattr(own._registry, "add_sandbox", add_sandbox)
    with pytest.raises(DiskFull):
        await own.create_sandbox(CreateSandbox(id="none"))
    assert ready.box and ready.box.ended.done()
    assert not (own.settings.home / "sandboxes" / "none").exists()
    assert not ready.premises.plan.run.exists()


async def test_numbers_are_never_used_again(own: Interpreter) -> None:
    one = await own.create_sandbox(CreateSandbox())
    await until(lambda: own.ready_boxes.waiting == 1)
    two = await own.create_sandbox(CreateSandbox())
    assert two.number > one.number
    three = await own.create_sandbox(CreateSandbox(limits=Limits(pids=500)))
    assert three.number > two.number


async def test_a_service_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handed out goes on; what waits ends."""
    monkeypatch.setenv("CELLSHELL_READY_BOXES", "1")
    async with serving(tmp_path, IMPATIENT) as service:
        sandboxes = tmp_path / "sandboxes"
        await service.code("kept = 1")
        await service.exec("kept() { echo kept; }")
        await until(lambda: any(path.name.startswith(".") for path in sandboxes.iterdir()))
        before = {path.name for path in sandboxes.iterdir() if path.name.startswith(".")}
        await service.restart()
        assert (await service.code("kept"))["text"] == "1"
        assert (await service.exec("kept"))["stdout"] == "kept\n"
        assert before.isdisjoint(path.name for path in sandboxes.iterdir())
        metrics = (await service.client.get("/metrics")).text
        assert 'cellshell_ready_boxes_total{result="hit"} 0.0' in metrics
