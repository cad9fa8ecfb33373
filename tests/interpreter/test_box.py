from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.family import children
from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox
from interpreter.sandboxes import Sandbox

PATH = {"PATH": "/usr/bin:/bin"}


async def output(process: BoxProcess) -> bytes:
    """What it writes until it ends."""
    assert process.stdout is not None
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(process.stdout, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return await reader.read()
    finally:
        transport.close()
        await process.wait()
        await process.release()


async def run(box: Box, script: str) -> str:
    process = await box.spawn(
        ["bash", "-c", script], env=PATH, cwd="/", stdout="pipe", stderr="null"
    )
    return (await output(process)).decode().strip()


async def test_exit_codes_and_signals(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    for script, code in (("exit 3", 3), ("kill -9 $$", -9), ("kill -SEGV $$", -11), ("true", 0)):
        process = await box.spawn(["bash", "-c", script], env=PATH, cwd="/")
        assert await process.wait() == code
        with pytest.raises(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.release()


@pytest.mark.parametrize(
    ("argv", "cwd", "error"),
    [
        (["no-such-program"], "/", FileNotFoundError),
        (["/etc/passwd"], "/", PermissionError),
        (["true"], "/no/such/directory", FileNotFoundError),
        (["true", "x" * 200_000], "/", OSError),
    ],
)
async def test_what_cannot_be_started_says_why(
    sandbox: Sandbox, argv: list[str], cwd: str, error: type[OSError]
) -> None:
    box = await sandbox.box()
    with pytest.raises(error):
        await box.spawn(argv, env=PATH, cwd=cwd)


async def test_a_message_larger_than_a_packet(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    env = PATH | {f"V{n}": "x" * 100_000 for n in range(5)}
    process = await box.spawn(["bash", "-c", "echo ${#V4}"], env=env, cwd="/", stdout="pipe")
    assert await output(process) == b"100000\n"


async def test_a_program_inherits_nothing_of_ours(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    assert await run(box, "ls /proc/self/fd | tr '\\n' ' '") == "0 1 2 3"  # 3: the directory
    assert await run(box, "env -0 | tr '\\0' '\\n' | grep -vE '^(PWD|SHLVL|_|PATH)='") == ""
    assert await run(box, "grep -cE 'Cap(Eff|Prm|Bnd):\\s0+$' /proc/self/status") == "3"
    assert await run(box, "grep NoNewPrivs /proc/self/status") == "NoNewPrivs:\t1"


async def test_the_walls(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    assert await run(box, "id -u") == "1000"
    assert await run(box, "cat /proc/1/environ | wc -c") == "0"
    assert await run(box, "touch /usr/x /etc/x /x /opt/x 2>&1 | grep -c Read-only") != "0"
    assert await run(box, "unshare -U true && echo nested") == ""
    assert await run(box, "kill -9 1; kill -STOP 1; echo survived") == "survived"
    assert await run(box, "ls /proc/1/fd 2>/dev/null | wc -l") == "0"


async def test_no_network_but_its_own_loopback(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    assert await run(box, "ls /sys/class/net 2>/dev/null; cat /proc/net/dev | grep -c :") == "1"
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        assert await run(box, f"(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo reached") == ""


async def test_files_are_opened_as_the_box_sees_them(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    await run(box, "ln -sfn /etc/shadow /workspace/evil")
    with pytest.raises(OSError):
        await box.open("/workspace/evil", os.O_RDONLY)
    with pytest.raises(OSError):
        await box.open(str(sandbox.directory), os.O_RDONLY)


async def test_a_port_in_the_box_is_reached(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    listener = await box.listen(0)
    listener.setblocking(False)
    port = listener.getsockname()[1]
    outside = await box.connect(port)
    inside, _ = await asyncio.get_running_loop().sock_accept(listener)
    outside.send(b"hello")
    assert await asyncio.get_running_loop().sock_recv(inside, 10) == b"hello"
    for connection in (outside, inside, listener):
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        await box.connect(port)


async def test_a_tree_is_found_wherever_it_went(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    script = "setsid sleep 1000 & (setsid sleep 1001 &); echo up; sleep 1002"
    process = await box.spawn(
        ["bash", "-c", script], env=PATH, cwd="/", stdout="pipe", subreaper=True
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout, True)
    assert await asyncio.to_thread(os.read, process.stdout, 10) == b"up\n"
    killed: set[int] = set()
    while found := await box.kill_tree([process.pid, *killed], signal.SIGKILL):
        killed |= set(found)
    assert len(killed) >= 3
    assert await process.wait() == -signal.SIGKILL
    os.close(process.stdout)
    await process.release()
    assert "100" not in await run(box, "ps ax | grep -o 'sleep 100[0-2]'")


async def test_a_fork_bomb_of_the_box_leaves_init_answering(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    process = await box.spawn(
        ["bash", "-c", "ulimit -u 200; f() { f | f & }; f; sleep 1000"],
        env=PATH,
        cwd="/",
        subreaper=True,
    )
    os.close(await box.open("/etc/passwd", os.O_RDONLY))
    roots = [process.pid]
    while found := await box.kill_tree(roots, signal.SIGKILL):
        roots = list({*roots, *found})
    await process.release()
    assert await run(box, "echo alive") == "alive"


async def test_a_caller_that_goes_away_leaves_nothing_running(sandbox: Sandbox) -> None:
    box = await sandbox.box()
    for _ in range(10):
        start = asyncio.ensure_future(box.spawn(["sleep", "4567"], env=PATH, cwd="/"))
        await asyncio.sleep(0)
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
    async with asyncio.timeout(10):
        while box._discarding:
            await asyncio.wait(box._discarding)
    assert await run(box, "pgrep -c 'sleep' || true") == "0"


@pytest.mark.box
async def test_nothing_of_a_box_is_left_not_even_to_be_reaped(sandbox: Sandbox) -> None:
    """A service may be pid 1 of a container: then nobody else reaps what bwrap left."""
    box = await sandbox.box()
    await box.spawn(["setsid", "sleep", "1000"], env=PATH, cwd="/")
    await box.destroy()
    assert not os.path.exists(f"/proc/{box.host_pid}")


@pytest.mark.parametrize("after", [0, 0.002, 0.01, 0.02, 0.03])
async def test_a_start_that_is_cancelled_leaves_nothing(
    interpreter: Interpreter, after: float
) -> None:
    making = asyncio.create_task(interpreter.create_sandbox(CreateSandbox(id="never")))
    await asyncio.sleep(after)
    making.cancel()
    await asyncio.wait({making})
    if not making.cancelled():
        await interpreter.delete_sandbox("never")
    assert not (interpreter.settings.home / "sandboxes" / "never").exists()
    lines = [Path(f"/proc/{pid}/cmdline") for pid in children(os.getpid())]
    assert [line.read_bytes() for line in lines if b"/never/" in line.read_bytes()] == []
