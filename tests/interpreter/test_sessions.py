"""The environment contract: one working directory, one set of variables, whoever changes them."""

from __future__ import annotations

import asyncio
import gc

import pytest
from asking import Python, Shell, python_of, shell_of

from interpreter.errors import InvalidRequest, SessionExists, SessionNotFound
from interpreter.interpreter import Interpreter
from interpreter.models import CreateContext, CreateSandbox, CreateSession, RunCode, StartProcess
from interpreter.recording import CodeRecording, CommandRecording
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

VALUES = [
    "",
    "plain",
    "a b",
    "l1\nl2\n",
    "'q' \"d\"",
    "$X `y` $(z) \\n",
    "ü☃",
    "=x=y",
    "-n",
    "\t\r",
]


@pytest.mark.parametrize("value", VALUES)
async def test_values_travel_exactly_both_ways(
    session: Session, shell: Shell, python: Python, value: str
) -> None:
    await session.set_env({"API": value})
    assert (await shell('printf %s "$API"')).stdout == value
    assert (await python("import os; os.environ['API']")).text == repr(value)
    await python(f"os.environ['KERNEL'] = {value!r}")
    assert (await shell('printf %s "$KERNEL"')).stdout == value
    await shell('export SHELL_SET="$KERNEL"')
    assert (await python("os.environ['SHELL_SET']")).text == repr(value)
    assert session.environment_info().env["SHELL_SET"] == value


async def test_directories_are_shared(session: Session, shell: Shell, python: Python) -> None:
    result = await shell("mkdir -p 'a b' && cd 'a b'")
    assert result.environment_changes.cwd == "/workspace/a b"
    assert (await python("import os; os.getcwd()")).text == "'/workspace/a b'"
    result = await python("os.chdir('/usr')")
    assert result.environment_changes.cwd == "/usr"
    assert (await shell("pwd; cd -")).stdout.startswith("/usr\n")


async def test_relative_paths_of_files_follow(session: Session, shell: Shell) -> None:
    await shell("mkdir -p sub; cd sub")

    async def chunks():  # type: ignore[no-untyped-def]
        yield b"data"

    info = await session.files.write("f.txt", chunks())
    assert info.path == "/workspace/sub/f.txt"
    assert (await shell("cat f.txt")).stdout == "data"


async def test_unset_reaches_everybody(session: Session, shell: Shell, python: Python) -> None:
    await session.set_env({"A": "1", "B": "1", "C": "1"})
    await shell("unset A")
    await python("import os; del os.environ['B']")
    await session.set_env({"C": None})
    assert (await shell("echo ${A-no} ${B-no} ${C-no}")).stdout == "no no no\n"
    assert (await python("[os.environ.get(n) for n in 'ABC']")).text == "[None, None, None]"


async def test_results_name_what_changed(shell: Shell, python: Python) -> None:
    result = await shell("export B=1 A=2; cd /tmp")
    assert result.environment_changes.model_dump() == {
        "cwd": "/tmp",
        "set": ["A", "B"],
        "unset": [],
    }
    result = await python("import os; del os.environ['A']; os.environ['C'] = '3'")
    changes = result.environment_changes.model_dump()
    assert changes == {"cwd": None, "set": ["C"], "unset": ["A"]}
    assert (await python("1")).environment_changes.model_dump() == {
        "cwd": None,
        "set": [],
        "unset": [],
    }


async def test_a_failing_cell_and_command_report_too(shell: Shell, python: Python) -> None:
    await python("import os; os.environ['A'] = '1'; os.chdir('/tmp'); 1/0")
    assert (await shell("echo $A; pwd; export B=2; false")).stdout == "1\n/tmp\n"
    assert (await python("os.environ['B']")).text == "'2'"


async def test_one_calls_env_and_cwd(session: Session, shell: Shell, python: Python) -> None:
    await session.set_env({"A": "session", "GONE": "there"})
    call = {"env": {"A": "call", "NEW": "x", "GONE": None}, "cwd": "/tmp"}
    shown = "call x none /tmp"
    assert (await shell("echo $A $NEW ${GONE-none} $PWD", **call)).stdout == shown + "\n"
    code = "import os; e = os.environ; print(e['A'], e['NEW'], e.get('GONE', 'none'), os.getcwd())"
    assert (await python(code, **call)).stdout == shown + "\n"
    after = "session none there /workspace\n"
    assert (await shell("echo $A ${NEW-none} $GONE $PWD")).stdout == after
    code = "print(os.environ['A'], os.environ.get('NEW', 'none'), os.environ['GONE'], os.getcwd())"
    assert (await python(code)).stdout == after


@pytest.mark.parametrize("ending", ["false", "exit 3", "cd /usr; export A=mine", "sleep 1000"])
async def test_one_calls_env_holds_however_it_ends(shell: Shell, ending: str) -> None:
    await shell(ending, env={"A": "call"}, cwd="/tmp", timeout=0.5)
    assert (await shell("echo ${A-none} $PWD")).stdout == "none /workspace\n"


@pytest.mark.parametrize(
    "ending", ["1/0", "os.environ['A'] = 'mine'; os.chdir('/usr')", "import time; time.sleep(99)"]
)
async def test_one_calls_env_holds_however_a_cell_ends(python: Python, ending: str) -> None:
    await python(f"import os; {ending}", env={"A": "call"}, cwd="/tmp", timeout=2)
    result = await python("print(os.environ.get('A', 'none'), os.getcwd())")
    assert result.stdout == "none /workspace\n"


async def test_a_private_context(session: Session, shell: Shell) -> None:
    await session.create_context(CreateContext(id="own", env={"P": "private"}, cwd="/tmp"))

    async def run(code: str) -> str | None:
        execution = await session.run_code(RunCode(code=code, context="own"))
        return (await execution.result()).text  # type: ignore[union-attr]

    await shell("export SHARED=1; cd /usr")
    assert await run("import os; (os.environ['P'], os.environ['SHARED'], os.getcwd())") == (
        "('private', '1', '/tmp')"
    )
    await run("os.environ['P'] = 'changed'; os.environ['OUT'] = '2'; os.chdir('/var')")
    assert await run("(os.environ['P'], os.getcwd())") == "('changed', '/var')"
    assert (await shell("echo ${P-none} $OUT $PWD")).stdout == "none 2 /usr\n"


async def test_different_variables_at_once_do_not_undo_each_other(session: Session) -> None:
    shell, python = shell_of(session), python_of(session)
    await python("import os, time")
    await asyncio.gather(
        shell("export FROM_SHELL=1; sleep 0.2"),
        python("os.environ['FROM_KERNEL'] = '1'; time.sleep(0.2)"),
        session.set_env({"FROM_API": "1"}),
    )
    expected = "1 1 1\n"
    assert (await shell("echo $FROM_SHELL $FROM_KERNEL $FROM_API")).stdout == expected


async def test_restarts_keep_the_environment(
    session: Session, shell: Shell, python: Python
) -> None:
    await python("import os; os.environ['K'] = '1'; os.chdir('/tmp')")
    await session.context("python").restart()
    assert (await python("import os; (os.environ['K'], os.getcwd())")).text == "('1', '/tmp')"
    await python("os.environ['E'] = '2'; exit()")
    assert (await shell("echo $K $E $PWD; kill -9 $$")).stdout == "1 2 /tmp\n"
    assert (await shell("echo $K $E $PWD")).stdout == "1 2 /tmp\n"


async def test_a_removed_directory(shell: Shell, python: Python) -> None:
    await shell("mkdir -p x/y; cd x/y")
    await python("1")
    await shell("rm -rf /workspace/x", cwd="/")
    result = await shell("pwd")
    assert result.stdout == "/workspace\n"
    assert [notice.code for notice in result.notices] == ["cwd_missing"]
    assert (await python("import os; os.getcwd()")).text == "'/workspace'"


async def test_python_paths_follow(shell: Shell, python: Python) -> None:
    await shell("mkdir -p lib; echo 'y = 5' > lib/mymodule.py; export PYTHONPATH=$PWD/lib")
    assert (await python("import mymodule; mymodule.y")).text == "5"


async def test_sandbox_variables(sandbox: Sandbox) -> None:
    first = await sandbox.create_session(CreateSession(env={"OWN": "session"}))
    await sandbox.set_env({"ALL": "1", "OWN": "sandbox"})
    second = await sandbox.create_session(CreateSession())
    line = "echo $ALL $OWN"
    assert (await shell_of(first)(line)).stdout == "1 session\n"
    assert (await shell_of(second)(line)).stdout == "1 sandbox\n"
    await shell_of(second)("unset ALL")
    await sandbox.set_env({"ALL": "2"})
    assert (await shell_of(second)("echo ${ALL-none}")).stdout == "none\n"
    assert (await shell_of(first)("echo $ALL")).stdout == "2\n"


async def test_sessions_keep_to_themselves(sandbox: Sandbox) -> None:
    first, second = [await sandbox.create_session(CreateSession()) for _ in range(2)]
    await shell_of(first)("export A=1; cd /tmp; f() { :; }")
    result = await shell_of(second)("echo ${A-none} $PWD; declare -F")
    assert result.stdout == "none /workspace\n"


async def test_processes_start_in_it(session: Session, sandbox: Sandbox, shell: Shell) -> None:
    await shell("export A=1; cd /tmp")
    process = await sandbox.processes.start(session, StartProcess(command="echo $A $PWD"))
    events = [event async for event in process.events()]
    assert [event.data["data"] for event in events if event.name == "stdout"] == ["1 /tmp\n"]


async def test_too_much_is_refused(session: Session) -> None:
    with pytest.raises(InvalidRequest):
        await session.set_env({f"V{n}": "x" * 100_000 for n in range(12)})


async def test_a_huge_value_of_a_cell_stays_its_own(shell: Shell, python: Python) -> None:
    result = await python(
        "import os; os.environ['HUGE'] = 'x' * 200_000; os.environ['SMALL'] = '1'"
    )
    assert result.environment_changes.set == ["SMALL"]
    assert (await shell("echo ${HUGE-none} $SMALL")).stdout == "none 1\n"


async def test_ids(sandbox: Sandbox) -> None:
    await sandbox.create_session(CreateSession(id="named"))
    with pytest.raises(SessionExists):
        await sandbox.create_session(CreateSession(id="named"))
    await sandbox.delete_session("named")
    with pytest.raises(SessionNotFound):
        sandbox.session("named")


async def test_default_comes_back_fresh(interpreter: Interpreter) -> None:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    await shell_of(sandbox.session("default"))("export A=1; cd /tmp")
    await sandbox.delete_session("default")
    result = await shell_of(sandbox.session("default"))("echo ${A-none} $PWD")
    assert result.stdout == "none /workspace\n"
    await interpreter.delete_sandbox(sandbox.id)


def recordings() -> set[int]:
    kinds = (CommandRecording, CodeRecording)
    return {id(each) for each in gc.get_objects() if isinstance(each, kinds)}


async def test_no_output_stays_in_memory(shell: Shell, python: Python) -> None:
    """Not even until garbage is collected, which takes its time."""
    await shell("true")
    await python("1")
    gc.collect()
    before = recordings()
    gc.disable()
    try:
        await shell("yes | head -c 100000")
        await shell("sleep 60", timeout=0.1)
        await python("print('x' * 100_000); 'y' * 100_000")
        await python("1 / 0")
        await python("while True: pass", timeout=0.1)
        assert recordings() <= before
    finally:
        gc.enable()
