"""Code that goes for the files, pipes and moments its session's shell is driven by."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from asking import Python, Shell, shell_of

from interpreter.models import CreateSession, Exec, ExecResult, StartProcess
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

RUN = "/run/cellshell/shell/$$"


async def test_a_fifo_where_output_is_to_be_kept(shell: Shell) -> None:
    await shell("mkdir -p ~/.cellshell/outputs; mkfifo ~/.cellshell/outputs/{kept,dir}.txt")
    result = await shell("seq 100000", id="kept", keep_output=True, timeout=5)
    assert (result.exit_code, result.timed_out) == (0, False)
    assert (await shell(f"tail -n 1 {result.output_path}")).stdout == "100000\n"


@pytest.mark.parametrize(
    "attack",
    [
        f"mkdir {RUN}/d; exit",
        f"rm -rf {RUN}; exit",
        f"mkdir {RUN}/9.out; rm {RUN}/report; exit",
        f"touch {RUN}/{{2..9}}.out; mkdir {RUN}/probe; sleep 4711 &",
    ],
)
async def test_the_files_of_the_driver_are_tampered_with(
    sandbox: Sandbox, session: Session, attack: str
) -> None:
    neighbour = await sandbox.create_session(CreateSession())
    await shell_of(neighbour)("f() { :; }")
    await shell_of(session)(attack, timeout=5)
    for _ in range(3):
        assert (await shell_of(session)("echo on", timeout=5)).stdout == "on\n"
        assert (await shell_of(neighbour)("f; echo here")).stdout == "here\n"
    await sandbox.delete_session(session.id)
    assert (await shell_of(neighbour)("f; echo here")).stdout == "here\n"
    await sandbox.delete_session(neighbour.id)


async def test_a_value_is_never_run(session: Session, shell: Shell) -> None:
    await session.set_env({"BIG": "touch /workspace/pwned\n" * 5000})
    for number in range(15):
        await shell("echo ran", timeout=0.0005 * (1 + number % 8))
        await session.set_env({"BIG": "touch /workspace/pwned\n" * (4999 - number)})
    assert (await shell("ls /workspace/pwned")).stdout == ""


async def test_a_busy_session_ends_at_once(sandbox: Sandbox) -> None:
    session = await sandbox.create_session(CreateSession())
    running = await session.exec(Exec(command="echo on; sleep 4712"))
    async for event in running.events():
        if event.name == "stdout":
            break
    begun = time.monotonic()
    await sandbox.delete_session(session.id)
    assert time.monotonic() - begun < 1.5


async def test_loops_of_short_programs_leave_the_shell(shell: Shell) -> None:
    await shell("f() { echo still; }")
    for loop in (
        "for i in {1..100000}; do echo $i | grep -q x; done",
        "while :; do /bin/true; done",
    ):
        for number in range(4):
            result = await shell(loop, timeout=0.1 + number / 50)
            assert (result.timed_out, result.shell_exited) == (True, False)
    assert (await shell("f")).stdout == "still\n"


async def test_a_directory_whose_name_is_no_text(
    sandbox: Sandbox, session: Session, shell: Shell
) -> None:
    await shell("mkdir -p $'\\xff'; cd $'\\xff'")
    process = await sandbox.processes.start(session, StartProcess(command="pwd | od -c"))
    await process.wait()
    assert "377" in process.logs().stdout


async def test_the_directory_is_where_the_shell_is(shell: Shell, python: Python) -> None:
    assert (await shell("PWD=/etc; /bin/pwd")).stdout == "/workspace\n"
    assert (await shell('/bin/pwd; echo "$PWD"', timeout=5)).stdout == "/etc\n/etc\n"
    result = await shell("cd /workspace; mkdir q; cd q; rmdir ../q; mkdir ../q")
    assert (await shell("touch z && ls /workspace/q")).stdout == "z\n"
    await shell("mkdir -p /workspace/shut/in; cd /workspace/shut/in; chmod 000 ..; exit")
    result = await shell("/bin/pwd")
    assert result.stdout == "/workspace\n"
    assert "cwd_missing" in [notice.code for notice in result.notices]
    assert (await python("import os; os.getcwd()")).text == "'/workspace'"
    await shell("chmod 755 shut")


async def test_the_previous_directory_is_the_users(shell: Shell) -> None:
    await shell("cd /usr")
    assert (await shell("pwd", cwd="/tmp")).stdout == "/tmp\n"
    assert (await shell("cd -")).stdout == "/workspace\n"


async def test_late_bytes_are_base64_too(session: Session) -> None:
    request = Exec(command="(read x < <(sleep 0.1); printf bb) & printf a", encoding="base64")
    execution = await session.exec(request)
    await execution.result()
    await shell_of(session)("wait")
    result = execution.snapshot()
    assert isinstance(result, ExecResult)
    assert base64.b64decode(result.stdout, validate=True) == b"abb"


async def test_a_repetition_is_not_judged_anew(shell: Shell, python: Python) -> None:
    await shell("mkdir -p /workspace/once")
    request = {"command": "rmdir /workspace/once; echo once", "cwd": "/workspace/once"}
    first = await shell(**request, id="once-shell")
    assert first == await shell(**request, id="once-shell")
    await shell("mkdir -p /workspace/once")
    code = {"code": "import os; os.rmdir('/workspace/once')", "cwd": "/workspace/once"}
    done = await python(**code, id="once-cell")
    assert done == await python(**code, id="once-cell")


async def test_two_sessions_are_told_apart_in_a_flood(sandbox: Sandbox) -> None:
    sessions = [await sandbox.create_session(CreateSession()) for _ in range(4)]
    commands = [shell_of(each)(f"yes {n} | head -n 200000") for n, each in enumerate(sessions)]
    for number, result in enumerate(await asyncio.gather(*commands)):
        assert set(result.stdout.split()) == {str(number)}
    for each in sessions:
        await sandbox.delete_session(each.id)


async def test_more_than_a_report_can_hold(shell: Shell) -> None:
    result = await shell('for i in {1..100}; do printf -v "v$i" "%100000s"; export "v$i"; done')
    assert result.exit_code is None
    assert [notice.code for notice in result.notices] == ["report_missing"]
    after = await shell("echo ${v1-gone}")
    assert (after.stdout, after.exit_code) == ("gone\n", 0)
    assert [notice.code for notice in after.notices] == ["shell_restarted"]
