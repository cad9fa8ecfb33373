"""A disk of the service's that is full: new work is refused, what runs goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from asking import python_of, shell_of

from interpreter.errors import DiskFull
from interpreter.interpreter import Interpreter
from interpreter.models import (
    CreateContext,
    CreateSandbox,
    CreateSession,
    Exec,
    RunCode,
    StartProcess,
)
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(os.geteuid() != 0, reason="root, to mount a small disk, is not installed"),
]


@pytest.fixture
def small(tmp_path: Path) -> AsyncIterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest_asyncio.fixture
async def cramped(small: Path) -> AsyncIterator[Interpreter]:
    async with Interpreter(Settings(home=small / "home")) as interpreter:
        yield interpreter


def fill(directory: Path) -> Path:
    """To the last byte."""
    path = directory / "fill"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def refusals(interpreter: Interpreter, sandbox: Sandbox) -> None:
    session = sandbox.session("default")
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: interpreter.create_sandbox(CreateSandbox(id="other")),
        lambda: sandbox.create_session(CreateSession(id="other")),
        lambda: sandbox.set_env({"A": "1"}),
        lambda: session.set_env({"A": "1"}),
        lambda: session.exec(Exec(command="true")),
        lambda: session.run_code(RunCode(code="1")),
        lambda: session.create_context(CreateContext(id="other")),
        lambda: sandbox.processes.start(session, StartProcess(command="true")),
        lambda: session.files.write("/workspace/file", once(bytes(1 << 20))),
        lambda: sandbox.pause(),
    ]
    for ask in asked:
        with pytest.raises(DiskFull):
            await ask()


async def test_a_full_disk(cramped: Interpreter, small: Path) -> None:
    sandbox = await cramped.create_sandbox(CreateSandbox(id="first"))
    session = sandbox.session("default")
    shell, python = shell_of(session), python_of(session)
    await python("x = 41")
    command = "export LATE=1; for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"
    running = await session.exec(Exec(command=command))
    await asyncio.sleep(0.3)
    filled = fill(small)
    await refusals(cramped, sandbox)
    assert [each.id for each in cramped.sandboxes()] == ["first"]
    assert [each.id for each in sandbox.sessions()] == ["default"]
    assert sandbox.info().status == "running"
    result = await running.result()
    assert result.stdout == "1\n2\n3\n4\n5\n"
    assert session.environment.variables["LATE"] == "1"
    assert "A" not in session.environment.variables
    filled.unlink()
    assert (await shell("echo $LATE")).stdout == "1\n"
    assert (await python("x + 1")).text == "42"
    session.save()


async def test_deleting_makes_room(cramped: Interpreter, small: Path) -> None:
    sandbox = await cramped.create_sandbox(CreateSandbox(id="large"))
    await shell_of(sandbox.session("default"))("head -c 8M /dev/zero > large")
    fill(small)
    await cramped.delete_sandbox("large")
    assert not sandbox.directory.exists()
    assert cramped._registry.sandboxes() == []
    fresh = await cramped.create_sandbox(CreateSandbox(id="large"))
    assert (await shell_of(fresh.session("default"))("ls")).stdout == ""
    await cramped.delete_sandbox("large")
