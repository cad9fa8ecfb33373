"""Without walls: what a session promises holds there too, and a box still ends as a whole."""

# ruff: noqa: F401  (imported tests run again, with the fixtures of this module)

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asking import Python, Shell, shell_of

from interpreter.errors import FileNotFound, InvalidCwd
from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox, CreateSession, Exec, StartProcess
from interpreter.process import Process
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from interpreter.settings import Settings
from tests.interpreter.test_box import (
    test_a_message_larger_than_a_packet,
    test_a_port_in_the_box_is_reached,
    test_exit_codes_and_signals,
    test_what_cannot_be_started_says_why,
)
from tests.interpreter.test_commands import (
    test_a_command_runs_exactly_as_it_is,
    test_a_queued_command_is_cancelled_without_running,
    test_deleting_a_session_answers_its_callers,
    test_exit_keeps_what_the_command_changed,
    test_functions_may_have_any_name,
    test_the_end_of_the_shell_is_told,
    test_what_earlier_commands_left_running_lives,
)
from tests.interpreter.test_contexts import (
    test_a_plot_is_one_png,
    test_death_is_told,
    test_deno,
    test_names_of_ours_are_not_the_users,
    test_output_of_subprocesses,
)
from tests.interpreter.test_sessions import (
    test_a_private_context,
    test_different_variables_at_once_do_not_undo_each_other,
    test_processes_start_in_it,
    test_python_paths_follow,
    test_restarts_keep_the_environment,
    test_results_name_what_changed,
    test_unset_reaches_everybody,
    test_values_travel_exactly_both_ways,
)

pytestmark = pytest.mark.box

SCATTERED = """
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM; echo up; read x < %s' &
(setsid setsid sh -c 'echo up; read x < %s' &)
echo up; read x < %s
"""


@pytest_asyncio.fixture(scope="module")
async def interpreter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Interpreter]:
    home = tmp_path_factory.mktemp("unconfined")
    settings = Settings(home=home, isolation="none", interrupt_grace=0.5)
    async with Interpreter(settings) as interpreter:
        yield interpreter


async def test_it_says_so(interpreter: Interpreter, sandbox: Sandbox) -> None:
    for isolation in (interpreter.health().isolation, sandbox.info().isolation):
        assert isolation.tier == "none"
        assert "chosen by the operator" in isolation.reason


async def test_the_workspace_is_a_directory_of_this_machine(
    sandbox: Sandbox, session: Session, shell: Shell, python: Python
) -> None:
    workspace = sandbox.info().workspace
    assert (await shell("pwd")).stdout == f"{workspace}\n"
    assert (await python("import os; os.getcwd()")).text == repr(workspace)
    Path(workspace, "mine").write_text("data")
    for path in ("mine", "/workspace/mine", f"{workspace}/mine"):
        info = await session.files.info(path)
        assert (info.path, info.size) == (f"{workspace}/mine", 4)
    await session.files.mkdir("/workspace/sub/deeper")
    assert (await shell("pwd", cwd="/workspace/sub")).stdout == f"{workspace}/sub\n"
    with pytest.raises(FileNotFound):
        await session.files.info("/workspace/missing")


async def test_sessions_start_below_it(sandbox: Sandbox) -> None:
    workspace = sandbox.info().workspace
    for cwd in ("/workspace/new", "new", f"{workspace}/new"):
        session = await sandbox.create_session(CreateSession(cwd=cwd))
        assert session.info().cwd == f"{workspace}/new"
    with pytest.raises(InvalidCwd):
        await sandbox.create_session(CreateSession(cwd="/no/such"))


async def test_home_and_its_environment(sandbox: Sandbox, shell: Shell, python: Python) -> None:
    result = await shell("cd; pwd; echo $VIRTUAL_ENV; command -v python pip")
    home, environment, *commands = result.stdout.split()
    assert Path(home) == sandbox.directory / "home"
    assert commands == [f"{environment}/bin/python", f"{environment}/bin/pip"]
    assert environment == f"{home}/.venv"
    assert (await python("import sys; sys.prefix")).text == repr(environment)
    assert (await shell("python -c 'import numpy, sys; print(sys.prefix)'")).stdout == (
        f"{environment}\n"
    )
    assert (await shell("pip --version")).exit_code == 0


async def test_nothing_of_the_service_is_inherited(
    shell: Shell, python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLSHELL_TOKEN", "secret")
    assert (await shell("env | grep -c CELLSHELL")).stdout == "0\n"
    assert (await python("import os; [v for v in os.environ if 'CELLSHELL' in v]")).text == "[]"
    assert (await shell("ls /proc/self/fd | tr '\\n' ' '")).stdout == "0 1 2 3 "


async def test_ports_are_those_of_its_own_processes(sandbox: Sandbox, session: Session) -> None:
    serve = (
        "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1]); s.accept()"
    )
    with socket.create_server(("127.0.0.1", 0)):
        process = await sandbox.processes.start(
            session, StartProcess(command=f'exec python -u -c "{serve}"')
        )
        port = int(await _first_line(process))
        found = await sandbox.ports()
        await process.kill()
    assert [(each.port, each.pid) for each in found] == [(port, process.info().pid)]


async def test_an_open_network_takes_no_port_of_the_machine(interpreter: Interpreter) -> None:
    request = CreateSandbox(network="open")
    sandboxes = [await interpreter.create_sandbox(request) for _ in range(2)]
    result = await shell_of(sandboxes[0].session("default"))("env | grep -ic _proxy")
    assert result.stdout == "0\n"
    for sandbox in sandboxes:
        assert await sandbox.ports() == []
        await interpreter.delete_sandbox(sandbox.id)


@pytest.mark.parametrize("command", ["sleep 999", "setsid sleep 999", "cat <(sleep 999)"])
async def test_a_timeout_ends_the_whole_command(
    sandbox: Sandbox, shell: Shell, command: str
) -> None:
    box = await sandbox.box()
    await shell("mine() { echo mine; }; sleep 998 & :")
    before = set(await box.kill_tree([box.host_pid], 0))
    assert (await shell(command, timeout=0.3)).timed_out
    assert (await shell("mine")).stdout == "mine\n"
    assert set(await box.kill_tree([box.host_pid], 0)) == before


async def test_a_timeout_ends_what_the_cell_started(sandbox: Sandbox, python: Python) -> None:
    box = await sandbox.box()
    start = "import subprocess, time; p = subprocess.Popen(['setsid', 'sleep', '997'])"
    await python(start)
    before = set(await box.kill_tree([box.host_pid], 0))
    result = await python(f"{start}; time.sleep(996)", timeout=0.5)
    assert (result.status, result.notices) == ("timeout", [])
    assert set(await box.kill_tree([box.host_pid], 0)) == before


@pytest.mark.parametrize("end", ["delete", "close", "terminate"])
async def test_everything_ends_with_the_box(interpreter: Interpreter, end: str) -> None:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    os.mkfifo(fifo := Path(sandbox.info().workspace, "fifo"))
    fifo.chmod(0o666)
    session = sandbox.session("default")
    script = SCATTERED.replace("%s", str(fifo))
    await shell_of(session)("python -c 'import os; os.fork(); os.setsid()' ")
    process = await sandbox.processes.start(session, StartProcess(command=script))
    running = await session.exec(Exec(command=f"trap '' TERM; read x < {fifo}"))
    async with asyncio.timeout(20):
        lines = 0
        async for event in process.events():
            lines += event.data.get("data", "").count("up")
            if lines == 3:
                break
    box = await sandbox.box()
    before = await box.kill_tree([box.host_pid], 0)
    assert len(before) >= 5
    if end == "terminate":
        os.kill(box.host_pid, signal.SIGTERM)
        await asyncio.shield(box.ended)
    elif end == "close":
        await box.destroy()
    await interpreter.delete_sandbox(sandbox.id)
    assert _alive(before) == []
    assert running.state == "done"


def _alive(pids: list[int]) -> list[int]:
    """Those that run; one that was killed is gone or waits to be buried."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


async def _first_line(process: Process) -> str:
    async with asyncio.timeout(20):
        async for event in process.events():
            if event.name == "stdout":
                return str(event.data["data"])
    raise AssertionError("it wrote nothing")
