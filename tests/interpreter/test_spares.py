"""Kernels that wait to be asked for: whose they become, and that nobody else's they ever are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from asking import python_of, shell_of
from restarting import serving

from interpreter import spares
from interpreter.interpreter import Interpreter
from interpreter.limit_models import Limits
from interpreter.models import CreateContext, CreateSandbox, CreateSession, RunCode
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

pytestmark = pytest.mark.box
PYTHON = CreateContext(language="python")


@pytest_asyncio.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Interpreter]:
    settings = Settings(home=tmp_path_factory.mktemp("spares"), spare_kernels=2)
    async with Interpreter(settings) as interpreter:
        assert interpreter.forks is not None
        assert await interpreter.forks.started()
        yield interpreter


@pytest_asyncio.fixture
async def sandbox(own: Interpreter) -> AsyncIterator[Sandbox]:
    sandbox = await own.create_sandbox(CreateSandbox(env={"OF": "the sandbox"}))
    await until(lambda: own.spares.settled)
    yield sandbox
    if sandbox in own.sandboxes():
        await own.delete_sandbox(sandbox.id)


async def until(found: Callable[[], bool]) -> None:
    for _ in range(1000):
        if found():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


async def test_it_becomes_the_sessions_own(own: Interpreter, sandbox: Sandbox) -> None:
    session = await sandbox.create_session(CreateSession(env={"MINE": "yes"}))
    await shell_of(session)("mkdir -p there; cd there; export TZ=Asia/Tokyo; unset USER")
    hits = own.spares.hits
    python = python_of(session)
    result = await python(
        "import os, time\n"
        "print(os.getcwd(), os.environ['OF'], os.environ['MINE'], os.environ.get('USER'))\n"
        "print(time.tzname[0], get_ipython().starting_dir, _dh)"
    )
    assert own.spares.hits == hits + 1
    assert result.stdout == (
        "/workspace/there the sandbox yes None\nJST /workspace/there ['/workspace/there']\n"
    )
    assert (result.execution_count, result.environment_changes.set) == (1, [])
    assert (await python("os.environ['NEW'] = 'x'")).environment_changes.set == ["NEW"]
    assert (await shell_of(session)("echo $NEW")).stdout == "x\n"
    seen = (await python("In[-1], _, Out")).text  # nothing of what had warmed it up
    assert seen == "('In[-1], _, Out', '', {})"


async def test_a_context_of_its_own_directory_and_variables(sandbox: Sandbox) -> None:
    session = sandbox.session("default")
    request = CreateContext(language="python", cwd="/tmp", env={"ONLY": "here", "OF": None})
    context = await session.create_context(request)
    result = await python_of(session)(
        "import os; os.getcwd(), os.environ['ONLY'], os.environ.get('OF')", context=context.id
    )
    assert result.text == "('/tmp', 'here', None)"
    assert result.cwd == "/workspace"


@pytest.mark.parametrize(
    "command, code, text",
    [
        ("export PYTHONHASHSEED=0", "import sys; sys.flags.hash_randomization", "0"),
        ("echo 'x = 1' > PIL.py", "import PIL; PIL.x", "1"),
    ],
)
async def test_one_that_would_not_be_the_same_is_not_taken(
    sandbox: Sandbox, command: str, code: str, text: str
) -> None:
    session = await sandbox.create_session(CreateSession())
    await shell_of(session)(command)
    assert (await python_of(session)(code)).text == text


async def test_there_is_another_one_soon(own: Interpreter, sandbox: Sandbox) -> None:
    session = sandbox.session("default")
    pids = set()
    for _ in range(4):
        await until(lambda: own.spares.settled)
        hits = own.spares.hits
        context = await session.create_context(PYTHON)
        assert own.spares.hits == hits + 1
        text = (await python_of(session)("import os; os.getpid()", context=context.id)).text
        pids.add(text)
    assert len(pids) == 4


async def test_many_at_once_get_one_each(sandbox: Sandbox) -> None:
    session = sandbox.session("default")
    made = await asyncio.gather(*(session.create_context(PYTHON) for _ in range(8)))
    python = python_of(session)
    told = await asyncio.gather(
        *(python("import os; os.getpid()", context=context.id) for context in made)
    )
    assert len({result.text for result in told}) == 8


async def test_there_are_no_more_than_the_operator_wants(own: Interpreter) -> None:
    made = [await own.create_sandbox(CreateSandbox()) for _ in range(4)]
    await until(lambda: own.spares.settled)
    assert own.spares.waiting == 2
    for sandbox in made:
        assert (await python_of(sandbox.session("default"))("1 + 1")).text == "2"
    for sandbox in made:
        await own.delete_sandbox(sandbox.id)
    assert own.spares.waiting == 0


async def test_a_limited_sandbox_has_none(own: Interpreter) -> None:
    try:
        sandbox = await own.create_sandbox(CreateSandbox(limits=Limits(pids=100)))
    except Exception as error:
        pytest.skip(f"no limits here: {error}")
    assert own.spares.settled
    assert (await shell_of(sandbox.session("default"))("pgrep -c python")).stdout == "1\n"
    await own.delete_sandbox(sandbox.id)


async def test_one_that_was_killed_is_not_handed_out(own: Interpreter, sandbox: Sandbox) -> None:
    await until(lambda: own.spares.settled)
    session = sandbox.session("default")
    await shell_of(session)("pkill -KILL -f '[p]ython_kernel.py -f'; sleep 0.1")
    assert (await python_of(session)("1 + 1")).text == "2"


async def test_one_that_was_stopped_does_not_hold_anybody_up(
    own: Interpreter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: own.spares.settled)
    session = sandbox.session("default")
    await shell_of(session)("pkill -STOP -f '[p]ython_kernel.py -f'")
    assert (await python_of(session)("1 + 1", timeout=30)).text == "2"


async def test_none_waits_while_its_sandbox_is_paused(own: Interpreter, sandbox: Sandbox) -> None:
    """It would hold memory, and a service that stops could not end it while it is frozen."""
    await until(lambda: own.spares.settled)
    assert own.spares.waiting == 1
    await sandbox.pause()
    assert (own.spares.settled, own.spares.waiting) == (True, 0)
    await sandbox.wake()
    await until(lambda: own.spares.waiting == 1)


async def test_none_is_made_while_kernels_are_asked_for(
    own: Interpreter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who ask come first."""
    monkeypatch.setattr(
        spares, "LULL", 3.0
    )  # on a busy machine a kernel takes longer than the usual
    forked = own.forks.forked if own.forks else 0
    for number in range(1, 4):
        await sandbox.session("default").create_context(PYTHON)
        assert not own.spares._making
        assert not own.spares.settled
        assert own.forks
        assert own.forks.forked == forked + number - 1
    await until(lambda: own.spares.settled)
    assert own.spares.waiting == 1


async def test_where_memory_is_short_none_waits(
    own: Interpreter, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: own.spares.settled)
    assert own.spares.waiting == 1
    monkeypatch.setattr(spares, "memory_available", lambda: 0.01)
    session = sandbox.session("default")
    assert (await python_of(session)("1 + 1")).text == "2"
    await until(lambda: own.spares.settled)
    assert own.spares.waiting == 0


async def test_a_deleted_sandbox_takes_it_along(own: Interpreter) -> None:
    sandbox = await own.create_sandbox(CreateSandbox())
    await own.delete_sandbox(sandbox.id)
    assert own.spares.settled
    assert own.spares.waiting == 0


async def test_one_that_is_asked_for_and_not_waited_for(sandbox: Sandbox) -> None:
    session = sandbox.session("default")
    for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
        running = asyncio.create_task(session.create_context(PYTHON))
        await asyncio.wait({running}, timeout=delay)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    for context in session.contexts():
        result = await (await session.run_code(RunCode(code="2", context=context.id))).result()
        assert result.state != "running"
    assert (await python_of(session)("1 + 1")).text == "2"


async def test_the_next_service_takes_up_those_that_are_used(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.until_warm()
        for _ in range(1000):
            if "spare_kernels_waiting 1.0" in (await service.client.get("/metrics")).text:
                break
            await asyncio.sleep(0.02)
        await service.code("x = 40")
        metrics = (await service.client.get("/metrics")).text
        assert 'cellshell_spare_kernels_total{result="hit"} 1.0' in metrics
        await service.restart()
        assert (await service.code("x + 2"))["text"] == "42"
        seen = await service.exec("pgrep -fc '[p]ython_kernel.py -f'")
        assert seen["stdout"] == "1\n"


def test_the_machines_memory_is_read() -> None:
    assert 0 < spares.memory_available() < 1
