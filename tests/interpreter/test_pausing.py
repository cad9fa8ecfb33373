"""Sandboxes that stand still: by request, or since nobody uses them."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asking import python_of, shell_of

from interpreter.activity import Activity
from interpreter.errors import SandboxNotFound
from interpreter.family import below
from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox, Exec, StartProcess, WaitFor
from interpreter.sandboxes import Sandbox

pytestmark = pytest.mark.box


@pytest_asyncio.fixture
async def own(interpreter: Interpreter) -> AsyncIterator[Sandbox]:
    """A sandbox of the test's own."""
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    yield sandbox
    if sandbox in interpreter.sandboxes():
        await interpreter.delete_sandbox(sandbox.id)


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
    now = await states(own)
    assert len(now) >= 3
    assert set(now.values()) == {b"T"}, now
    assert (await shell("f; jobs -pr | wc -l")).stdout == "kept\n2\n"
    assert own.info().status == "running"
    assert b"T" not in (await states(own)).values()
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
    first = await states(own)
    assert set(first.values()) <= {b"T", b"Z"}
    await asyncio.sleep(0.3)
    assert await states(own) == first


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
        assert set((await states(own)).values()) <= {b"T", b"Z"}
        await asyncio.sleep(0.1)
    assert own.info().status == "paused"
    await own.wake()
    assert b"T" not in (await states(own)).values()


async def test_twice_at_once_and_during_other_things(own: Sandbox) -> None:
    shell = shell_of(own.session("default"))
    await asyncio.gather(own.pause(), own.pause(), shell("true"), own.pause(), shell("true"))
    await own.pause()
    assert (await shell("echo on")).stdout == "on\n"
    await own.pause()
    await own.session("default").files.write("/workspace/file", once(b"data"))
    assert own.info().status == "running"


async def test_a_paused_one_is_deleted_at_once(interpreter: Interpreter) -> None:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    await shell_of(sandbox.session("default"))("sleep 1000 &")
    await sandbox.pause()
    begin = time.monotonic()
    await interpreter.delete_sandbox(sandbox.id)
    assert time.monotonic() - begin < 2


async def test_a_pause_while_it_is_being_deleted(interpreter: Interpreter) -> None:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    await asyncio.gather(
        interpreter.delete_sandbox(sandbox.id), sandbox.pause(), return_exceptions=True
    )
    assert not sandbox.directory.exists()


# Idle


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


def test_signals_go_to_nobody_else() -> None:
    """A number whose process has another start than was noted belongs to somebody else."""
    from interpreter.pausing import _signal

    _signal(os.getpid(), 1, 9)
