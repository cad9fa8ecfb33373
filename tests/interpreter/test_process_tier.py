"""Boxes without namespaces: what a session promises holds in them too, and they end as a whole."""

# ruff: noqa: F401  (imported tests run again, with the fixtures of this module)

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asking import Python, Shell, shell_of
from process_tier import serving_processes

from interpreter.errors import NetworkUnsupported
from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
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
from tests.interpreter.test_unconfined import (
    test_a_timeout_ends_the_whole_command,
    test_a_timeout_ends_what_the_cell_started,
    test_everything_ends_with_the_box,
    test_home_and_its_environment,
    test_nothing_of_the_service_is_inherited,
    test_ports_are_those_of_its_own_processes,
    test_sessions_start_below_it,
    test_the_workspace_is_a_directory_of_this_machine,
)

pytestmark = pytest.mark.box


@pytest_asyncio.fixture(scope="module")
async def interpreter() -> AsyncIterator[Interpreter]:
    async with serving_processes() as interpreter:
        yield interpreter


async def test_it_says_so(interpreter: Interpreter, sandbox: Sandbox) -> None:
    for isolation in (interpreter.health().isolation, sandbox.info().isolation):
        assert isolation.tier == "process"
        assert isolation.reason.startswith("Landlock: ")
        assert "the list of processes" in isolation.reason
        same_user = "code runs as the service's user" in isolation.reason
        assert same_user == (os.geteuid() != 0)
    assert sandbox.info().network == "none"


async def test_a_directory_for_temporary_files(sandbox: Sandbox, shell: Shell) -> None:
    result = await shell(
        'f=$(mktemp) && echo x > "$f" && echo "$f" && '
        'python -I -c "import tempfile; print(tempfile.mkstemp()[1])"'
    )
    found = result.stdout.splitlines()
    assert len(found) == 2, result.stderr
    assert all(each.startswith(f"{sandbox.directory}/tmp/") for each in found)
    await (await sandbox.box()).destroy()
    assert (await shell('ls -A "$TMPDIR"')).stdout == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.9", "::1", "::"])
async def test_loopback_works(python: Python, host: str) -> None:
    result = await python(
        "import asyncio, socket\n"
        f"family = socket.AF_INET6 if ':' in {host!r} else socket.AF_INET\n"
        f"s = socket.create_server(({host!r}, 0), family=family)\n"
        "c = socket.create_connection(s.getsockname()[:2])\n"
        "c.sendall(b'hello'); print(s.accept()[0].recv(5))\n"
        "async def main():\n"
        "    async def answer(r, w): w.write(await r.read(3)); w.close()\n"
        "    server = await asyncio.start_server(answer, '127.0.0.1', 0)\n"
        "    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    w.write(b'abc'); print(await r.read())\n"
        "await main()"
    )
    assert result.stdout == "b'hello'\nb'abc'\n", result


async def test_unix_sockets_work(python: Python, shell: Shell) -> None:
    result = await python(
        "import os, socket\n"
        "for place in ('named', os.path.abspath('other'), os.environ['TMPDIR'] + '/third'):\n"
        "    s = socket.socket(socket.AF_UNIX); s.bind(place); s.listen()\n"
        "    c = socket.socket(socket.AF_UNIX); c.connect(place); c.sendall(b'x')\n"
        "    print(s.accept()[0].recv(1)); os.unlink(place)\n"
        "c = socket.socket(socket.AF_UNIX)\n"
        "for wrong in ('missing', '/dev/null', '.'):\n"
        "    try: c.connect(wrong)\n"
        "    except OSError as error: print(error.errno)\n"
        "a, b = socket.socketpair(); a.sendall(b'y'); print(b.recv(1))"
    )
    assert result.stdout.split() == [*["b'x'"] * 3, "2", "13", "13", "b'y'"], result


async def test_a_server_that_takes_no_more_holds_up_its_own_client_alone(
    python: Python, shell: Shell
) -> None:
    result = await python(
        "import socket, threading\n"
        "s = socket.create_server(('127.0.0.1', 0), backlog=0)\n"
        "def one():\n"
        "    c = socket.socket(); c.settimeout(1)\n"
        "    try: c.connect(s.getsockname()); kept.append(c)\n"
        "    except OSError as error: kept.append(error)\n"
        "kept = []\n"
        "threads = [threading.Thread(target=one) for _ in range(100)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(len(kept))",
        timeout=20,
    )
    assert result.stdout == "100\n", result
    code = "from socket import *; s = create_server(('', 0)); create_connection(s.getsockname())"
    assert (await shell(f'python -c "{code}"')).exit_code == 0


async def test_work_in_several_processes(python: Python) -> None:
    """By pipes always; semaphores have names in a directory that only own users keep apart."""
    result = await python(
        "import multiprocessing as m\n"
        "a, b = m.Pipe(); p = m.Process(target=b.send, args=(5,)); p.start(); print(a.recv())\n"
        "p.join()\n"
        "try:\n"
        "    with m.Pool(2) as pool: print(pool.map(abs, [-1, 2]))\n"
        "except PermissionError: print('refused')"
    )
    expected = "[1, 2]" if os.geteuid() == 0 else "refused"
    assert result.stdout == f"5\n{expected}\n", result


async def test_git_and_pip(shell: Shell) -> None:
    result = await shell(
        "git init -q r && cd r && git config user.email a@b && git config user.name n && "
        "echo x > f && git add f && git commit -qm m && git log --format=%s && "
        "python -m venv --without-pip v && pip list >/dev/null && rm -rf ../r && echo fine"
    )
    assert result.stdout == "m\nfine\n", result


async def test_limits_are_those_of_a_box(interpreter: Interpreter, shell: Shell) -> None:
    limits = interpreter.health().isolation.limits
    assert limits.open_files == "rlimit"
    most = min(interpreter.settings.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert (await shell("ulimit -Hn")).stdout == f"{most}\n"
    if os.geteuid() == 0:
        assert limits.pids is not None


@pytest.mark.parametrize("network", ["open", {"allow": ["example.org"]}])
async def test_networks_go_by_the_proxy_alone(interpreter: Interpreter, network: object) -> None:
    request = CreateSandbox.model_validate({"network": network})
    sandboxes = [await interpreter.create_sandbox(request) for _ in range(2)]
    for sandbox in sandboxes:
        shell = shell_of(sandbox.session("default"))
        told = await shell("curl -sS -o /dev/null -w '%{http_code}' http://10.1.2.3/; echo")
        assert told.stdout == "403\n", told
        assert [each.host for each in sandbox.network_log.after(0)] == ["10.1.2.3"]
        direct = await shell("curl -sS --noproxy '*' http://1.1.1.1/")
        assert direct.exit_code == 7, direct
        assert await sandbox.ports() == []
    for sandbox in sandboxes:
        await interpreter.delete_sandbox(sandbox.id)
