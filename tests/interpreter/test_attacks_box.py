"""Attacks on a box from inside, each of which once got somewhere in a prototype."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asking import Python, Shell, python_of, shell_of
from test_box import run

from interpreter.box import Box
from interpreter.interpreter import Interpreter
from interpreter.isolation import base_mounts, box_uid
from interpreter.models import CreateSandbox
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings
from interpreter.walls import BoxPlan, write_etc

pytestmark = pytest.mark.box


@pytest_asyncio.fixture
async def secretive(
    interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sandbox]:
    """A sandbox of a service that has a secret in its environment when it starts the box."""
    monkeypatch.setenv("CELLSHELL_PLANTED", "s3cret-of-the-service")
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    yield sandbox
    await interpreter.delete_sandbox(sandbox.id)


async def test_nothing_of_the_service_is_to_be_seen(secretive: Sandbox) -> None:
    """Its environment, its arguments, its files: neither by init nor by any other process."""
    sandbox, shell = secretive, shell_of(secretive.session("default"))
    await python_of(secretive.session("default"))("1")
    result = await shell(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"
    )
    assert "s3cret" not in result.stdout and str(sandbox.directory) not in result.stdout
    assert str(os.getpid()) not in (await shell("ls /proc")).stdout.split()
    result = await shell(
        "wc -c < /proc/1/environ; cat /proc/1/maps /proc/1/mem; readlink /proc/1/exe"
    )
    assert result.stdout.split() == ["0"] or result.stdout == "", result


async def test_it_is_nobody_on_this_machine(sandbox: Sandbox, shell: Shell) -> None:
    box = await sandbox.box()
    status = Path(f"/proc/{box.host_pid}/status").read_text()
    uids = {int(uid) for uid in status.partition("\nUid:")[2].splitlines()[0].split()}
    assert uids == {sandbox._plan.uid if sandbox._plan.uid is not None else os.geteuid()}
    if os.geteuid() == 0:
        assert 0 not in uids
        assert Path(f"/proc/{box.host_pid}/uid_map").read_text().split()[1] != "0"
    sets = await shell("grep -h ^Cap /proc/self/status | awk '{print $2}' | sort -u")
    assert sets.stdout.split() == ["0" * 16]
    asked = await shell(
        "su </dev/null; su -c 'id -u' </dev/null; id -u"
    )  # setuid counts for nothing
    assert asked.stdout.split() == ["1000"]


async def test_the_system_is_read_only(shell: Shell) -> None:
    for place in ("/", "/usr", "/etc", "/opt", "/dev", "/home", "/var", "/opt/cellshell/guest"):
        result = await shell(f"touch {place}/planted")
        assert "Read-only file system" in result.stderr or "denied" in result.stderr, result
    result = await shell(
        "mount -o remount,rw / ; : > /etc/passwd; echo x > /proc/sys/kernel/hostname"
    )
    assert result.exit_code != 0


async def test_every_tmpfs_has_a_size(sandbox: Sandbox, shell: Shell) -> None:
    """Without one, each would be half of this machine's memory."""
    listed = await shell(
        "awk '$3 == \"tmpfs\" && $4 ~ /^rw/ {print $2}' /proc/mounts | xargs stat -f -c '%n %b %S'"
    )
    sizes = {}
    for line in listed.stdout.splitlines():
        name, blocks, size = line.rsplit(" ", 2)
        sizes[name] = int(blocks) * int(size)
    plan = sandbox._plan
    devices = {name for name in sizes if name.startswith("/dev/") and name != "/dev/shm"}
    assert not [name for name in devices if await _holds(shell, name)]
    rest = {name: size for name, size in sizes.items() if name not in devices}
    assert rest == {"/tmp": plan.tmp_bytes, "/dev/shm": plan.shm_bytes, "/run": 64 << 20}


async def _holds(shell: Shell, place: str) -> bool:
    """Whether a directory takes files."""
    return (await shell(f"test -d {place} && touch {place}/x")).exit_code == 0


async def test_a_full_tmpfs_stops_who_fills_it(shell: Shell) -> None:
    result = await shell("head -c 100M /dev/zero > /run/full; stat -c %s /run/full; rm /run/full")
    assert "No space left on device" in result.stderr
    assert int(result.stdout) <= 64 << 20


async def test_init_is_neither_traced_nor_stopped(sandbox: Sandbox, python: Python) -> None:
    result = await python(
        "import ctypes, os, signal\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE\n"
        "    print(libc.ptrace(request, 1, None, None), ctypes.get_errno())\n"
        "for number in set(signal.valid_signals()): os.kill(1, number)\n"
        "for name in ('mem', 'environ', 'maps', 'fd', 'root', 'cwd'):\n"
        "    try: print(os.listdir(f'/proc/1/{name}') if name in ('fd', 'root', 'cwd') "
        "else open(f'/proc/1/{name}', 'rb').read(1) or 'empty')\n"
        "    except OSError as error: print(error.errno)\n"
    )
    assert result.stdout.splitlines()[:2] == ["-1 1", "-1 1"]
    assert set(result.stdout.splitlines()[2:]) <= {"13", "1", "empty"}, result.stdout
    assert await run(await sandbox.box(), "echo alive") == "alive"


async def test_a_child_that_asks_to_be_traced(sandbox: Sandbox, shell: Shell) -> None:
    """Stopped, it is reported to its parent: to init, when the parent has gone."""
    code = (
        "import ctypes, os, signal; os.fork() and os._exit(0); os.setsid(); "
        "ctypes.CDLL(None).ptrace(0, 0, None, None); os.kill(os.getpid(), signal.SIGUSR1)"
    )
    assert (await shell(f'setsid python3 -c "{code}"; echo gone')).stdout == "gone\n"
    box = await sandbox.box()
    process = await box.spawn(
        ["python3", "-c", code.replace("os.fork() and os._exit(0); os.setsid(); ", "")],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    async with asyncio.timeout(10):
        assert await process.wait() == -10
    await process.release()
    assert await run(box, "echo alive") == "alive"


async def test_nobody_inside_talks_to_init(sandbox: Sandbox, python: Python) -> None:
    """The control socket has no name in the box, and init obeys no peer that has a pid there."""
    result = await python(
        "import os, socket\n"
        "found = []\n"
        "for place, _, names in os.walk('/run'):\n"
        "    found += [f'{place}/{name}' for name in names if name == 'control']\n"
        "print(found)\n"
        "names = {line.split()[-1] for line in open('/proc/net/unix').readlines()[1:]}\n"
        "reached = []\n"
        "for name in names:\n"
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:\n"
        "        try:\n"
        "            s.connect(name)\n"
        "            reached.append(name)\n"
        "        except OSError:\n"
        "            pass\n"
        "print(reached)"
    )
    assert result.stdout.splitlines() == ["[]", "[]"], result
    box = await sandbox.box()
    assert (box.host_run / "control").is_socket()
    assert (box.host_run / "control").stat().st_uid == os.geteuid()


async def test_no_descriptor_comes_along(shell: Shell, python: Python) -> None:
    result = await shell("for p in /proc/[0-9]*; do readlink $p/fd/* 2>/dev/null; done | sort -u")
    for target in result.stdout.splitlines():
        outside = target.startswith("/") and not target.startswith(
            (
                "/dev/",
                "/proc/",
                "/run/cellshell/",
                "/workspace",
                "/home/user",
                "/usr/",
                "/opt/",
                "/tmp/",
            )
        )
        assert not outside, result.stdout
        assert "memfd:seccomp" not in target
    told = await python(
        "import os; print(sorted(os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)))"
    )
    assert str(Path.home()) not in told.stdout


async def test_a_box_outlives_the_thread_that_started_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With --die-with-parent it would end with the thread, not with the process."""
    files, short = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("r")
    settings = Settings(home=files)
    write_etc(files / "etc", "")
    plan = BoxPlan(files=files, run=short, uid=box_uid(settings, 900), mounts=base_mounts())
    started: list[Box] = []

    async def start() -> None:
        box = await Box.start(plan)
        started.append(box)
        box.leave()

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    await asyncio.to_thread(thread.join)
    found = await Box.find(plan)
    assert found is not None
    box, _ = found
    assert box.host_pid == started[0].host_pid
    assert await run(box, "echo alive") == "alive"
    await box.destroy()
    await started[0].destroy()  # reaps bwrap, whose parent is this process
