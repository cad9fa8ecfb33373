"""Sandboxes that stand still: by request, or since nobody uses them."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from asking import python_of, shell_of

from interpreter.activity import Activity
from interpreter.cgroup import Group
from interpreter.cgroups import Cgroups, hierarchies
from interpreter.errors import SandboxNotFound, WaitTimeout
from interpreter.family import below
from interpreter.interpreter import Interpreter, with_idle_policy
from interpreter.limit_models import Limits
from interpreter.models import (
    CodeResult,
    CreateSandbox,
    Exec,
    ExecResult,
    RunCode,
    StartProcess,
    WaitFor,
)
from interpreter.pausing import Pause
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

pytestmark = pytest.mark.box


@pytest_asyncio.fixture(params=["cgroup2", "cgroup1", "signals"])
async def own(
    interpreter: Interpreter, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Sandbox]:
    """A sandbox of the test's own, paused in each way."""
    async with freezing(request.param, tmp_path) as group:
        sandbox = await interpreter.create_sandbox(CreateSandbox())
        sandbox._pause = Pause(sandbox._pause._path, group)
        yield sandbox
        if sandbox in interpreter.sandboxes():
            await interpreter.delete_sandbox(sandbox.id)


@asynccontextmanager
async def freezing(way: str, directory: Path) -> AsyncIterator[Group]:
    """A group that stops processes in that way; nobody is left in it."""
    if way == "signals":
        yield Group({})
        return
    freezer = frozenset({"freezer"})
    found = [
        each._replace(controllers=freezer)
        for each in hierarchies()
        if f"cgroup{each.version}" == way and freezer <= each.controllers
    ]
    name = f"cellshell-test-{os.getpid()}"
    groups = Cgroups.claim(name, directory / "cgroups.json", found)
    group = groups.group("box")
    try:
        if groups.version("freezer") is None:
            pytest.skip(f"the freezer of {way} is not installed: {groups.lacking['freezer']}")
        group.create(Limits())
        yield group
        assert group.processes() == set()
        await group.remove()
    finally:
        groups.close()


async def idle_one(interpreter: Interpreter, timeout: float, **policy: str) -> Sandbox:
    request = CreateSandbox.model_validate({"idle_timeout": timeout, **policy})
    return await interpreter.create_sandbox(request)


async def states(sandbox: Sandbox) -> dict[str, bytes]:
    """What runs in the box, by its command line."""
    assert sandbox._box
    found = {}
    for seen in below(sandbox._box.host_pid, ()):
        line = Path(f"/proc/{seen.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found[line.strip()] = seen.state
    return found


async def used(sandbox: Sandbox) -> dict[int, int]:
    """Processor time of each process in the box, in clock ticks."""
    assert sandbox._box
    found = {}
    for seen in below(sandbox._box.host_pid, ()):
        fields = Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split()
        found[seen.pid] = int(fields[11]) + int(fields[12])
    return found


async def stands_still(sandbox: Sandbox) -> bool:
    before = await used(sandbox)
    await asyncio.sleep(0.2)
    return bool(before) and await used(sandbox) == before


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def until(true: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


async def test_everything_stands_still_and_goes_on(own: Sandbox) -> None:
    session = own.session("default")
    shell, python = shell_of(session), python_of(session)
    await python("x = 41")
    await shell("f() { echo kept; }; (while :; do :; done) & sleep 1000 &")
    await own.pause()
    assert own.info().status == "paused"
    assert len(await states(own)) >= 3
    assert await stands_still(own)
    assert (await shell("f; jobs -pr | wc -l")).stdout == "kept\n2\n"
    assert own.info().status == "running"
    assert not await stands_still(own)
    assert (await python("x + 1")).text == "42"


async def test_what_the_user_stopped_stays_stopped(own: Sandbox) -> None:
    shell = shell_of(own.session("default"))
    await shell(
        "sleep 1001 & sleep 1002 & until pgrep -fx 'sleep 1001'; do :; done; kill -STOP %1; "
        "until grep -q ') T ' /proc/$(pgrep -fx 'sleep 1001')/stat; do :; done"
    )
    await own.pause()
    await own.wake()
    found = await states(own)
    assert (found["sleep 1001"], found["sleep 1002"]) in ((b"T", b"S"), (b"T", b"R"))


async def test_a_running_command_goes_on_where_it_was(own: Sandbox) -> None:
    session = own.session("default")
    execution = await session.exec(Exec(command="for i in 1 2 3; do echo $i; sleep 0.3; done"))
    async for event in execution.events():
        if event.name == "stdout":
            break
    await own.pause()
    await asyncio.sleep(1.2)
    assert not execution.ended.done()
    await own.wake()
    assert (await execution.result()).stdout == "1\n2\n3\n"


async def test_a_fork_bomb_is_stopped(own: Sandbox) -> None:
    shell = shell_of(own.session("default"))
    await shell("(while :; do (sleep 0.01) & [ $(jobs -r | wc -l) -gt 30 ] && wait -n; done) &")
    await own.pause()
    assert await stands_still(own)


CONTINUING = """
import os, signal
others = []
for _ in range(6):
    if (pid := os.fork()) == 0:
        while True:
            for other in others:
                os.kill(other, signal.SIGCONT)
    others.append(pid)
print("going", flush=True)
while True:
    for other in others:
        os.kill(other, signal.SIGCONT)
"""


async def test_who_is_let_go_on_by_a_neighbour_is_stopped_again(own: Sandbox) -> None:
    session = own.session("default")
    command = f"exec python3 -c {shlex.quote(CONTINUING)}"
    process = await own.processes.start(session, StartProcess(command=command))
    await process.wait_for(WaitFor.model_validate({"for": "log", "pattern": "going"}))
    await own.pause()
    for _ in range(3):
        assert await stands_still(own)
    assert own.info().status == "paused"
    await own.wake()
    assert b"T" not in (await states(own)).values()


async def test_twice_at_once_and_during_other_things(own: Sandbox) -> None:
    shell = shell_of(own.session("default"))
    commands = [asyncio.create_task(shell("true")) for _ in range(3)]
    await asyncio.gather(own.pause(), own.pause(), own.pause())
    await own.wake()  # what had begun before stands still too
    await asyncio.gather(*commands)
    await own.pause()
    assert (await shell("echo on")).stdout == "on\n"
    await own.pause()
    await own.session("default").files.write("/workspace/file", once(b"data"))
    assert own.info().status == "running"


async def test_a_paused_one_is_deleted_at_once(interpreter: Interpreter, own: Sandbox) -> None:
    await shell_of(own.session("default"))("sleep 1000 &")
    await own.pause()
    begin = time.monotonic()
    await interpreter.delete_sandbox(own.id)
    assert time.monotonic() - begin < 2


async def test_a_pause_while_it_is_being_deleted(interpreter: Interpreter, own: Sandbox) -> None:
    await shell_of(own.session("default"))("sleep 1000 &")
    begin = time.monotonic()
    await asyncio.gather(
        own.pause(), interpreter.delete_sandbox(own.id), own.pause(), return_exceptions=True
    )
    assert time.monotonic() - begin < 2
    assert not own.directory.exists()


HEADLESS = """
import ctypes, threading, time
def work():
    while True:
        pass
threading.Thread(target=work).start()
print("going", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


async def test_threads_whose_first_one_has_ended_stand_still_too(own: Sandbox) -> None:
    """/proc calls such a process a zombie."""
    session = own.session("default")
    command = f"exec python3 -c {shlex.quote(HEADLESS)}"
    process = await own.processes.start(session, StartProcess(command=command))
    await process.wait_for(WaitFor.model_validate({"for": "log", "pattern": "going"}))
    assert process.box
    stat = Path(f"/proc/{process.host_pid}/stat")
    await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    await own.pause()
    assert await stands_still(own)
    await own.wake()
    assert not await stands_still(own)


async def test_init_answers_while_everything_else_stands_still(own: Sandbox) -> None:
    await own.pause()
    assert own._box
    assert await own._box.directory("/workspace") == "/workspace"
    assert own.info().status == "paused"


async def test_a_pause_that_is_cancelled_is_none(own: Sandbox) -> None:
    await shell_of(own.session("default"))("sleep 1000 &")
    pausing = asyncio.ensure_future(own.pause())
    for _ in range(3):  # its turns are short: it is somewhere in the middle
        await asyncio.sleep(0)
    pausing.cancel()
    await asyncio.wait({pausing})
    assert own.info().status == ("running" if pausing.cancelled() else "paused")
    assert (await shell_of(own.session("default"))("echo on")).stdout == "on\n"


# Time-outs


@pytest.mark.parametrize("kind", ["command", "cell"])
async def test_a_time_out_counts_what_ran(own: Sandbox, kind: str) -> None:
    session = own.session("default")
    await python_of(session)("import time")
    if kind == "command":
        execution = await session.exec(Exec(command="echo on; sleep 1000", timeout=1))
    else:
        code = "print('on', flush=True); time.sleep(1000)"
        execution = await session.run_code(RunCode(code=code, timeout=1))
    async for event in execution.events():
        if event.name in ("stdout", "output"):
            break
    for _ in range(2):
        await own.pause()
        await asyncio.sleep(0.8)
        assert not execution.ended.done()
        await own.wake()
    woken = time.monotonic()
    result = await execution.result()
    assert 0.3 < time.monotonic() - woken < 5
    assert isinstance(result, ExecResult | CodeResult)
    ended = result.timed_out if isinstance(result, ExecResult) else result.status == "timeout"
    assert ended


async def test_waiting_for_a_process_goes_on_during_a_pause(own: Sandbox) -> None:
    """That time is the caller's."""
    session = own.session("default")
    process = await own.processes.start(session, StartProcess(command="sleep 1000"))
    wait = WaitFor.model_validate({"for": "exit", "timeout": 0.5})
    waiting = asyncio.ensure_future(process.wait_for(wait))
    await asyncio.sleep(0)
    await own.pause()
    with pytest.raises(WaitTimeout):
        await asyncio.wait_for(waiting, 5)
    assert own.info().status == "paused"


# Idle


@pytest.mark.parametrize(
    ("asked", "timeout"), [({}, 5), ({"idle_timeout": None}, None), ({"idle_timeout": 7}, 7)]
)
def test_null_is_never(asked: dict[str, float | None], timeout: float | None) -> None:
    request = CreateSandbox.model_validate(asked)
    assert with_idle_policy(request, Settings(idle_timeout=5)).idle_timeout == timeout


async def test_an_idle_sandbox_is_paused_and_woken(interpreter: Interpreter) -> None:
    sandbox = await idle_one(interpreter, 0.4)
    try:
        shell = shell_of(sandbox.session("default"))
        await shell("f() { echo kept; }")
        await until(lambda: sandbox.info().status == "paused")
        assert (await shell("f")).stdout == "kept\n"
        assert sandbox.info().status == "running"
        await until(lambda: sandbox.info().status == "paused")
    finally:
        await interpreter.delete_sandbox(sandbox.id)


async def test_a_paused_sandbox_is_idle_too(interpreter: Interpreter) -> None:
    sandbox = await idle_one(interpreter, 0.5, on_idle="destroy")
    await sandbox.pause()
    assert sandbox.info().status == "paused"
    await until(lambda: not sandbox.directory.exists())


async def test_an_idle_sandbox_is_deleted(interpreter: Interpreter) -> None:
    sandbox = await idle_one(interpreter, 0.3, on_idle="destroy")
    await until(lambda: sandbox not in interpreter.sandboxes())
    with pytest.raises(SandboxNotFound):
        interpreter.sandbox(sandbox.id)
    await until(lambda: not sandbox.directory.exists())


async def test_what_counts_as_activity(interpreter: Interpreter) -> None:
    sandbox = await idle_one(interpreter, 0.4)
    session = sandbox.session("default")
    try:
        result = await shell_of(session)("sleep 1.3; echo ran")
        assert result.stdout == "ran\n"
        assert sandbox.info().status == "running"
        request = StartProcess(command="sleep 1000", keep_alive=True)
        kept = await sandbox.processes.start(session, request)
        await asyncio.sleep(1.2)
        assert sandbox.info().status == "running"
        await sandbox.processes.start(session, StartProcess(command="sleep 1000"))
        await kept.kill()
        await until(lambda: sandbox.info().status == "paused")
        await sandbox.wake()
        with session.during():
            await asyncio.sleep(1.2)
            assert sandbox.info().status == "running"
        await until(lambda: sandbox.info().status == "paused")
    finally:
        await interpreter.delete_sandbox(sandbox.id)


async def test_the_timer_counts_from_the_last_activity() -> None:
    fired = asyncio.Event()

    async def on_idle() -> None:
        fired.set()

    activity = Activity(0.3, since="", is_busy=lambda: False, on_idle=on_idle)
    begin = time.monotonic()
    activity.touch()
    for _ in range(5):
        await asyncio.sleep(0.1)
        activity.touch()
    assert not fired.is_set()
    await asyncio.wait_for(fired.wait(), 5)
    assert time.monotonic() - begin > 0.75
    activity.close()
