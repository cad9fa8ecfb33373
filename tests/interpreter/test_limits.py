"""Limits of a sandbox: each strikes where it should, says so, and leaves the others alone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asking import python_of, shell_of

from interpreter.cgroup import Group
from interpreter.errors import AtCapacity, LimitUnsupported, NotReady
from interpreter.interpreter import Interpreter
from interpreter.isolation import probe
from interpreter.limit_models import LimitMechanisms, Limits
from interpreter.limits import Enforcement
from interpreter.models import CreateContext, CreateSandbox, CreateSession, Exec, StartProcess
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

pytestmark = pytest.mark.box
MIB = 1 << 20
EAT = "python3 -c 'data = bytearray({0} << 20); print(len(data))'"


@pytest.fixture
def enforcement(interpreter: Interpreter) -> Enforcement:
    return interpreter._enforcement


def needs(name: str, enforcement: Enforcement) -> None:
    if getattr(enforcement.mechanisms, name) is None:
        pytest.skip(f"a limit on {name} is not installed here: {enforcement.lacking.get(name)}")


@pytest_asyncio.fixture
async def make(interpreter: Interpreter) -> AsyncIterator[Any]:
    made: list[Sandbox] = []

    async def make(**limits: float) -> Sandbox:
        request = CreateSandbox.model_validate({"limits": limits})
        made.append(await interpreter.create_sandbox(request))
        return made[-1]

    yield make
    for sandbox in made:
        await interpreter.delete_sandbox(sandbox.id)
        assert not sandbox._premises.group.exists


async def test_memory(make: Any, enforcement: Enforcement, sandbox: Sandbox) -> None:
    needs("memory", enforcement)
    neighbour = shell_of(sandbox.session("default"))
    small = await make(memory_bytes=256 * MIB)
    shell, python = shell_of(small.session("default")), python_of(small.session("default"))
    assert (await shell("f() { echo kept; }; " + EAT.format(10))).notices == []
    result = await shell(EAT.format(600))
    assert result.exit_code == 137
    (notice,) = result.notices
    assert notice.code == "memory_limit"
    assert notice.message.startswith("killed: memory limit 256 MiB, peak 25"), notice
    assert (await shell("f")).stdout == "kept\n"
    assert (await neighbour(EAT.format(400))).stdout == f"{400 * MIB}\n"
    cell = await python("data = bytearray(600 << 20)")
    assert cell.status == "died"
    assert [each.code for each in cell.notices] == ["memory_limit"]
    assert cell.exit and cell.exit.reason == "memory"
    assert cell.error and "killed: memory limit 256 MiB, peak 25" in cell.error.evalue
    assert (await python("1 + 1")).text == "2"
    told = await small.usage()
    assert told.memory_limit_bytes == 256 * MIB
    assert told.memory_bytes is not None and told.memory_bytes < 256 * MIB
    assert told.memory_peak_bytes is not None and told.memory_peak_bytes > 200 * MIB


async def test_a_process_that_takes_too_much(make: Any, enforcement: Enforcement) -> None:
    needs("memory", enforcement)
    small = await make(memory_bytes=128 * MIB)
    request = StartProcess(command=EAT.format(300))
    process = await small.processes.start(small.session("default"), request)
    await process.wait()
    told = process.info()
    assert (told.status, told.exit_code) in (("exited", 137), ("killed", 137))
    assert told.reason and told.reason.startswith("killed: memory limit 128 MiB, peak 12")


async def test_limits_that_the_kernel_refuses(
    interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Group, limits: Limits) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Group, "create", refuse)
    with pytest.raises(NotReady, match="limits cannot be set"):
        await interpreter.create_sandbox(CreateSandbox())


async def test_tmp_counts_as_memory(make: Any, enforcement: Enforcement) -> None:
    needs("memory", enforcement)
    small = await make(memory_bytes=128 * MIB)
    shell = shell_of(small.session("default"))
    result = await shell("head -c 300M /dev/zero > /tmp/large || echo failed; rm -f /tmp/large")
    assert [each.code for each in result.notices] in ([], ["memory_limit"])
    assert result.stdout == "failed\n" or result.shell_exited
    assert (await shell("echo on")).stdout == "on\n"


async def test_cpus(make: Any, enforcement: Enforcement) -> None:
    needs("cpus", enforcement)
    slow = await make(cpus=0.1)
    spin = "import time\nbegin, spent = time.time(), time.process_time()\n"
    spin += "while time.time() - begin < 1.5: pass\n(time.process_time() - spent) / 1.5"
    python = python_of(slow.session("default"))
    assert float((await python(spin)).text or 9) < 0.4
    assert (await slow.usage()).cpu_seconds


async def test_pids(make: Any, enforcement: Enforcement, sandbox: Sandbox) -> None:
    needs("pids", enforcement)
    few = await make(pids=40)
    shell = shell_of(few.session("default"))
    bomb = "for i in {1..200}; do sleep 5 & done 2>/dev/null; wait; exit 3"
    result = await shell(bomb, timeout=3)
    assert result.exit_code != 0
    assert "pids_limit" in [each.code for each in result.notices], result
    assert (await shell_of(sandbox.session("default"))("echo fine")).stdout == "fine\n"
    assert (await shell("echo on; true | true")).stdout == "on\n"
    assert (await few.usage()).pids_limit == 40


async def test_disk(make: Any, enforcement: Enforcement) -> None:
    needs("disk", enforcement)
    small = await make(disk_bytes=32 * MIB)
    session = small.session("default")
    shell = shell_of(session)
    result = await shell("head -c 100M /dev/zero > /workspace/large; stat -c %s /workspace/large")
    assert "No space left on device" in result.stderr
    assert int(result.stdout) <= 32 * MIB
    told = await small.usage()
    assert told.disk_limit_bytes == 32 * MIB
    assert told.disk_bytes is not None and told.disk_bytes > 24 * MIB
    assert told.disk_measured == "image"
    assert (await shell("rm large; echo x > small; cat small")).stdout == "x\n"
    assert os.path.ismount(small.directory / "disk")


async def test_open_files(make: Any, interpreter: Interpreter) -> None:
    many = await make()
    hard = (await shell_of(many.session("default"))("ulimit -Hn")).stdout
    assert int(hard) <= interpreter.settings.open_files
    used = await many.usage()
    assert used.open_files and used.pids


async def test_a_process_limit_by_init(
    interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """Where there is no control group for it: a uid of its own, and RLIMIT_NPROC."""
    enforcement = interpreter._enforcement
    if os.geteuid() != 0:
        pytest.skip("root, which gives each sandbox a uid, is not installed here")
    without = enforcement.mechanisms.model_copy(update={"pids": "rlimit"})
    monkeypatch.setattr(enforcement, "mechanisms", without)
    monkeypatch.setattr(enforcement, "_cgroups", type(enforcement._cgroups)(Path("/nonexistent")))
    few = await make(pids=30)
    shell = shell_of(few.session("default"))
    result = await shell("for i in {1..100}; do sleep 5 & done; wait; exit 3", timeout=3)
    assert "Resource temporarily unavailable" in result.stderr
    assert (await shell("echo on")).stdout == "on\n"


async def test_what_cannot_be_had_is_refused(interpreter: Interpreter, tmp_path: Path) -> None:
    isolation = (await probe(interpreter.settings)).model_copy(update={"tier": "none"})
    enforcement = await Enforcement.probe(Settings(home=tmp_path), isolation)
    assert enforcement.mechanisms == LimitMechanisms()
    for limits in ({"memory_bytes": 64 * MIB}, {"cpus": 1}, {"pids": 9}, {"disk_bytes": 64 * MIB}):
        with pytest.raises(LimitUnsupported, match="cannot be enforced here"):
            enforcement.grant(Limits.model_validate(limits))
    assert enforcement.grant(Limits()) == Limits()
    assert "no limit on" in enforcement.describe(isolation).reason


@pytest.mark.parametrize(
    ("settings", "asked", "gets"),
    [
        ({}, None, None),
        ({"default_pids": 50}, None, 50),
        ({"max_pids": 70}, None, 70),
        ({"default_pids": 50, "max_pids": 40}, None, 40),
        ({"default_pids": 50, "max_pids": 70}, 60, 60),
        ({"max_pids": 70}, 71, LimitUnsupported),
    ],
)
async def test_what_the_operator_says(
    enforcement: Enforcement, tmp_path: Path, settings: Any, asked: int | None, gets: Any
) -> None:
    needs("pids", enforcement)
    chosen = Settings(home=tmp_path, **settings)
    own = Enforcement(chosen, enforcement.mechanisms, {}, enforcement._cgroups)
    if gets is LimitUnsupported:
        with pytest.raises(LimitUnsupported, match="70 at most"):
            own.grant(Limits(pids=asked))
    else:
        assert own.grant(Limits(pids=asked)).pids == gets


async def test_counts_and_wall_clock(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, max_sessions=2, max_contexts=1, max_processes=1, max_seconds=0.5
    )
    async with Interpreter(settings) as interpreter:
        sandbox = await interpreter.create_sandbox(CreateSandbox())
        session = sandbox.session("default")
        await sandbox.create_session(CreateSession())
        with pytest.raises(AtCapacity):
            await sandbox.create_session(CreateSession())
        await session.create_context(CreateContext(id="one"))
        with pytest.raises(AtCapacity):
            await session.create_context(CreateContext(id="two"))
        await sandbox.processes.start(session, StartProcess(command="sleep 1000"))
        with pytest.raises(AtCapacity):
            await sandbox.processes.start(session, StartProcess(command="sleep 1000"))
        begin = time.monotonic()
        result = await (await session.exec(Exec(command="sleep 1000", timeout=60))).result()
        assert result.timed_out  # type: ignore[union-attr]
        assert time.monotonic() - begin < 10
        await interpreter.delete_sandbox(sandbox.id)


async def test_the_end_of_init_by_memory_is_told(make: Any, enforcement: Enforcement) -> None:
    """Whatever is killed: the next call finds a box."""
    needs("memory", enforcement)
    small = await make(memory_bytes=64 * MIB)
    shell = shell_of(small.session("default"))
    eaters = " & ".join([EAT.format(100)] * 5)
    await asyncio.wait_for(shell(f"{eaters}; wait"), 30)
    for _ in range(3):
        if (await shell("echo on")).stdout == "on\n":
            return
    pytest.fail("the sandbox did not come back")


async def test_usage_of_a_tree_deeper_than_a_program_can_recurse(make: Any) -> None:
    deep = await make()
    dig = "import os\nfor _ in range(1500):\n os.mkdir('d'); os.chdir('d')"
    dug = await shell_of(deep.session("default"))(f'head -c 1M /dev/zero > one; python3 -c "{dig}"')
    assert dug.exit_code == 0
    told = await deep.usage()
    assert told.disk_bytes is not None and told.disk_bytes >= MIB


@pytest.mark.parametrize("named", [True, False])
async def test_sessions_made_at_once_are_counted(tmp_path: Path, named: bool) -> None:
    async with Interpreter(Settings(home=tmp_path, max_sessions=3)) as interpreter:
        sandbox = await interpreter.create_sandbox(CreateSandbox())
        wanted = [CreateSession(id=f"s{i}" if named else None) for i in range(8)]
        made = await asyncio.gather(*map(sandbox.create_session, wanted), return_exceptions=True)
        refused = [each for each in made if isinstance(each, BaseException)]
        assert len(sandbox.sessions()) == 3
        assert len(refused) == 6 and all(isinstance(each, AtCapacity) for each in refused)
        await interpreter.delete_sandbox(sandbox.id)
