"""Deno, which listens on tcp alone, behind Unix sockets as every other kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kernels
from kernels.messages import Stream
from kernels.outcome import Death
from kernels.specs import KernelPaths, Languages, find_deno

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jupyter_client.kernelspec import KernelSpec

    from kernels.kernel import Kernel

GUEST = Path(kernels.__file__).parent / "guest"
RELAY = GUEST / "tcp_relay.py"


@pytest.fixture
def deno_spec(tmp_path: Path) -> KernelSpec:
    deno = find_deno()
    if deno is None:
        pytest.skip("Deno is not installed: pip install 'cellshell[deno]'")
    paths = KernelPaths(
        python=os.path.realpath(sys.executable),
        guest=str(GUEST),
        deno=str(deno),
        home=str(tmp_path),
    )
    return Languages(deno=deno).find("typescript").spec(paths)


@pytest.fixture
async def deno(start_kernel: Callable[..., Awaitable[Kernel]], deno_spec: KernelSpec) -> Kernel:
    return await start_kernel(spec=deno_spec)


async def test_output_goes_through(deno: Kernel) -> None:
    heard: list[Any] = []
    outcome = await deno.execute("console.log('x'.repeat(3_000_000))", on_message=heard.append)
    assert outcome.status == "ok"
    await deno.execute("0", on_message=heard.append)
    assert sum(len(event.text) for event in heard if isinstance(event, Stream)) == 3_000_001


async def test_an_interrupt_goes_through(deno: Kernel) -> None:
    looping = asyncio.Event()

    def heard(event: object) -> None:
        if isinstance(event, Stream):
            looping.set()

    run = asyncio.create_task(
        deno.execute("const kept = 7; console.log(1); while (true) {}", on_message=heard)
    )
    await looping.wait()
    await deno.interrupt()
    assert (await run).status == "error"
    assert (await deno.execute("if (kept !== 7) throw 1")).status == "ok"


@pytest.mark.parametrize(
    ("code", "death"),
    [
        ("Deno.exit(3)", Death(3, None)),
        ("Deno.kill(Deno.pid, 'SIGKILL')", Death(None, "SIGKILL")),
    ],
)
async def test_it_ends_as_the_kernel_does(deno: Kernel, code: str, death: Death) -> None:
    outcome = await deno.execute(code)
    assert outcome.status == "died"
    assert outcome.death == death


async def test_the_kernel_ends_with_the_relay(deno: Kernel, tmp_path: Path) -> None:
    await deno.execute("Deno.writeTextFileSync('pid', String(Deno.pid))")
    fd = os.pidfd_open(int((tmp_path / "pid").read_text()))
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, over.set)
    try:
        deno.kill()
        async with asyncio.timeout(10):
            await over.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


def relay(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-B", str(RELAY), *words]
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(cwd)}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=cwd, env=env)


def test_a_kernel_that_does_not_come_up(tmp_path: Path) -> None:
    file = tmp_path / "k.json"
    file.write_text(f'{{"transport": "ipc", "ip": "{tmp_path}/k", "shell_port": 1, "key": "k"}}')
    ended = relay(str(file), "--", "sh", "-c", 'cat "$0"; exit 7', str(file), cwd=tmp_path)
    assert ended.returncode == 7
    assert '"transport": "tcp"' in ended.stdout
    ended = relay(str(file), "--", "sh", "-c", "kill -SEGV $$", cwd=tmp_path)
    assert ended.returncode == -signal.SIGSEGV
    ended = relay(str(file), "--", "/nowhere/kernel", cwd=tmp_path)
    assert ended.returncode == 1
    assert "/nowhere/kernel" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"k.json", "k-1"}


def test_a_wrong_call_says_so(tmp_path: Path) -> None:
    ended = relay("file", "sh", cwd=tmp_path)
    assert ended.returncode == 2
    assert "CONNECTION_FILE -- PROGRAM" in ended.stderr
