"""The environment contract where it is easiest to break: odd values, other languages."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest
import zmq.asyncio
from asking import Python, Shell, python_of
from jupyter_client.session import Session as Messages

from interpreter.errors import CellshellError
from interpreter.models import (
    CodeResult,
    CreateContext,
    Exec,
    ExecResult,
    RunCode,
    StartProcess,
)
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

DIRECTORIES = [
    "a'b\"c",
    "new\nline",
    "ends in one\n",
    "ünï ☃",
    "trail ",
    "-dash",
    "$A `id`",
    "~",
]
SHOW = {
    "typescript": "console.log(Deno.env.get('A'), Deno.cwd())",
    "r": "cat(Sys.getenv('A'), getwd(), '\\n', sep = ' ')",
}
NOTHING: dict[str, Any] = {"cwd": None, "set": [], "unset": []}


@pytest.fixture(params=sorted(SHOW))
def language(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "r" and shutil.which("R") is None:
        pytest.skip("R with IRkernel is not installed")
    if name == "typescript":
        pytest.importorskip("deno", reason="the extra `deno` is not installed")
    return name


def changes(result: ExecResult | CodeResult) -> dict[str, Any]:
    return result.environment_changes.model_dump()


def codes(result: ExecResult | CodeResult) -> list[str]:
    return [notice.code for notice in result.notices]


async def shown(session: Session, language: str, **options: Any) -> list[str]:
    result = await python_of(session)(SHOW[language], language=language, **options)
    assert changes(result) == NOTHING
    return result.stdout.split()


@pytest.mark.parametrize("name", DIRECTORIES)
async def test_directories_of_any_name(shell: Shell, python: Python, name: str) -> None:
    path = f"/workspace/{name}"
    result = await python(f"import os; os.makedirs({path!r}, exist_ok=True); os.chdir({path!r})")
    assert changes(result) == {**NOTHING, "cwd": path}
    assert (await shell("pwd; cd /")).stdout == path + "\n"
    assert changes(await shell('cd -- "$D"', env={"D": path})) == {**NOTHING, "cwd": path}
    assert (await python("os.getcwd()")).text == repr(path)


async def test_bytes_that_are_not_utf8(session: Session, shell: Shell, python: Python) -> None:
    await python("import os; os.environb[b'BAD'] = b'a\\xff'; os.mkdir(b'd\\xff')")
    await shell("cd d*; export BACK=$BAD$(printf '\\xfe')")
    both = "os.environb[b'BACK'], os.getcwdb()"
    assert (await python(both)).text == "(b'a\\xff\\xfe', b'/workspace/d\\xff')"
    try:
        await python("1", language="typescript")  # which can hold neither
    except CellshellError as error:
        pytest.skip(str(error))
    assert (await python(both)).text == "(b'a\\xff\\xfe', b'/workspace/d\\xff')"


async def test_deno_starts_whatever_the_environment(session: Session, shell: Shell) -> None:
    pytest.importorskip("deno", reason="the extra `deno` is not installed")
    await shell("export A=$(printf 'a\\xff'); mkdir -p $A; cd $A")
    result = await python_of(session)("Deno.cwd()", language="typescript")
    assert (result.status, changes(result)) == ("ok", NOTHING)
    assert session.environment.cwd == "/workspace/a\udcff"


async def test_a_fresh_kernel_has_what_changed_since_it_started(
    session: Session, shell: Shell, language: str
) -> None:
    await session.create_context(CreateContext(id=language, language=language))
    await session.set_env({"A": "1"})
    assert (await shown(session, language))[0] == "1"
    await session.context(language).restart()
    assert await shown(session, language, env={"A": "call"}, cwd="/usr") == ["call", "/usr"]
    assert await shown(session, language) == ["1", "/workspace"]


async def test_a_value_is_the_text_and_no_port_of_ours_is_listed(
    sandbox: Sandbox, python: Python, language: str
) -> None:
    result = await python("1 + 1", language=language)
    assert result.text == {"typescript": "2", "r": "[1] 2"}[language]
    assert await sandbox.ports() == []


async def test_a_symbolic_link_is_no_change(session: Session, shell: Shell, language: str) -> None:
    await session.set_env({"A": "1"})
    await shell("mkdir -p real; ln -sfn real link")
    await shown(session, language)
    await shell("cd link")
    for _ in range(2):
        assert (await shown(session, language))[1] == "/workspace/real"
        assert session.environment.cwd == "/workspace/link"
    assert (await shell("pwd; cd ..; pwd")).stdout == "/workspace/link\n/workspace\n"


async def test_a_directory_removed_under_a_kernel(
    session: Session, shell: Shell, python: Python, language: str
) -> None:
    await session.set_env({"A": "1"})
    await shell("mkdir -p x/y; cd x/y")
    await shown(session, language)
    await shell("rm -r /workspace/x", cwd="/")
    result = await python(SHOW[language], language=language)
    assert (result.stdout.split()[1], codes(result)) == ("/workspace", ["cwd_missing"])
    assert (await shell("pwd")).notices == []


async def test_a_directory_removed_under_python(shell: Shell, python: Python) -> None:
    await shell("mkdir -p x/y; cd x/y")
    await python("1")
    await shell("rm -r /workspace/x", cwd="/")
    result = await python("1")
    assert (result.cwd, codes(result)) == ("/workspace", ["cwd_missing"])
    assert (await shell("pwd")).notices == []


async def test_one_calls_variables_cover_what_the_shell_does_not_export(shell: Shell) -> None:
    await shell("x=5; declare -i n=3; a=(1 '2 b'); e=; set -u")
    before = (await shell('declare -p x n a e; printf %q "$IFS"')).stdout
    call = {"x": "c", "n": "7", "a": "b", "e": "z", "IFS": ":", "NEW": "1"}
    for ending in ("", "exit_code() { return 3; }; exit_code", "x=9; unset a", "sleep 1000"):
        result = await shell(f"echo $x $n $a $e $NEW; {ending}", env=call, timeout=0.5)
        assert (result.stdout, changes(result)) == ("c 7 b z 1\n", NOTHING)
        after = await shell('declare -p x n a e; printf %q "$IFS"; echo ${NEW-}')
        assert (after.stdout, after.stderr) == (before + "\n", "")
    assert "__cellshell" not in (await shell("set; env")).stdout


async def test_one_call_may_say_what_is_private_to_a_place(shell: Shell) -> None:
    call = {"PAGER": "cat", "TERM": "xterm", "COLUMNS": "99", "FORCE_COLOR": "0"}
    before = (await shell("env | sort")).stdout
    assert (await shell("env | grep -c 'COLOR=0\\|^PAGER=cat\\|TERM=x'", env=call)).stdout == "3\n"
    assert (await shell("env | sort")).stdout == before


async def test_a_client_may_give_what_places_have_for_themselves(
    sandbox: Sandbox, session: Session, shell: Shell, python: Python
) -> None:
    seen = "import os; print(os.environ.get('PAGER'), os.environ.get('BASH_ENV'))"
    echo = "echo ${PAGER-} ${BASH_ENV-}"
    await python("1")
    await shell("export PAGER=shells; true")
    assert (await python(seen)).stdout == "cat None\n"
    await session.set_env({"PAGER": "given", "BASH_ENV": "/dev/null"})
    for _ in range(2):
        assert (await shell(echo)).stdout == "given /dev/null\n"
        assert (await python(seen)).stdout == "given /dev/null\n"
    assert (await shell(echo, env={"PAGER": "once"})).stdout == "once /dev/null\n"
    result = await shell(f"{echo}; export PAGER=mine")
    assert (result.stdout, changes(result)) == ("given /dev/null\n", NOTHING)
    assert (await shell(echo)).stdout == "mine /dev/null\n"
    await shell("exit")
    assert (await shell(echo)).stdout == "given /dev/null\n"
    await session.set_env({"PAGER": None, "BASH_ENV": None})
    assert (await shell(echo)).stdout == "\n"
    await sandbox.set_env({"TERM": "vt52"})
    assert (await shell("echo $TERM")).stdout == "vt52\n"
    await sandbox.set_env({"TERM": None})


async def test_what_is_too_large_takes_nothing_else_along(shell: Shell, python: Python) -> None:
    result = await shell("export HUGE=$(printf %0200000d 1); export SMALL=1")
    assert (changes(result)["set"], codes(result)) == (["SMALL"], ["environment_skipped"])
    after = await shell("echo ${#HUGE} $SMALL")  # the shell's own, until it says otherwise
    assert (after.stdout, after.notices) == ("200000 1\n", [])
    assert (await python("import os; 'HUGE' in os.environ, os.environ['SMALL']")).text == (
        "(False, '1')"
    )
    assert (await shell("unset HUGE; /bin/echo ${HUGE-gone}")).stdout == "gone\n"


async def test_sizes_are_those_of_bytes(session: Session, shell: Shell) -> None:
    result = await shell("v=$(printf '☃%.0s' {1..60000}); export WIDE=$v")
    assert (changes(result)["set"], codes(result)) == ([], ["environment_skipped"])


async def test_a_thousand_variables(shell: Shell, python: Python) -> None:
    await python("import os\nfor n in range(1000): os.environ[f'K{n}'] = str(n)")
    result = await shell("echo $K999; for n in {0..999}; do unset K$n; export S$n=$n; done")
    assert result.stdout == "999\n"
    assert [len(changes(result)[kind]) for kind in ("set", "unset")] == [1000, 1000]
    assert (await python("os.environ['S999'], 'K0' in os.environ")).text == "('999', False)"
    assert changes(await shell("unset ${!S@}"))["set"] == []


async def test_what_is_set_while_a_cell_runs_reaches_the_next(
    session: Session, shell: Shell, python: Python
) -> None:
    code = "import os; print('go', flush=True); open('fifo').read(); os.environ['MINE'] = '1'"
    await session.set_env({"DURING": "old"})
    await shell("mkfifo fifo")
    running = await session.run_code(RunCode(code=code))
    async for event in running.events():
        if event.name == "output":
            break
    await session.set_env({"DURING": "new"})
    await shell("echo > fifo; rm fifo")
    result = await running.result()
    assert changes(result) == {**NOTHING, "set": ["MINE"]}
    assert (await python("os.environ['DURING'], os.environ['MINE']")).text == "('new', '1')"


async def test_who_finishes_last_wins(session: Session, shell: Shell, python: Python) -> None:
    await shell("mkfifo fifo2")
    running = await session.exec(Exec(command="export W=shell; echo go; cat fifo2"))
    async for event in running.events():
        if event.name == "stdout":
            break
    await python("import os; os.environ['W'] = 'cell'")
    await python("open('fifo2', 'w').close()")
    await running.result()
    assert (await python("os.environ['W']")).text == "'shell'"


async def test_a_queue_of_cells_that_all_move(session: Session, python: Python) -> None:
    await python("import os\nfor n in range(50): os.makedirs(f'/workspace/q/{n}')")
    code = "print(os.getcwd()); os.chdir('/workspace/q/{}')"
    runs = [await session.run_code(RunCode(code=code.format(n))) for n in range(50)]
    results = [await run.result() for run in runs]
    wanted = [f"/workspace/q/{n}" for n in range(50)]
    assert [result.environment_changes.cwd for result in results] == wanted
    assert [result.stdout.strip() for result in results] == ["/workspace", *wanted[:-1]]


async def test_another_clients_cell_takes_part(
    session: Session, shell: Shell, python: Python
) -> None:
    await python("1")
    kernel = session.context("python")._kernel
    assert kernel is not None
    await session.set_env({"API": "1"})
    told = asyncio.Event()
    ends = session.environment.subscribe(told.set)
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(kernel.endpoint("shell"))
        messages = Messages(key=kernel.record.key.encode())
        code = "import os; os.environ['OTHER'] = os.environ['API'] + '2'; os.chdir('/usr')"
        request = messages.msg("execute_request", {"code": code, "silent": True})
        await socket.send_multipart(messages.serialize(request))
        reply = messages.feed_identities(await socket.recv_multipart())[1]
        assert messages.deserialize(reply)["content"]["status"] == "ok"
        socket.linger = 0
    await told.wait()
    ends()
    assert (await shell("echo $OTHER $PWD")).stdout == "12 /usr\n"


async def test_a_virtual_environment_comes_and_goes(shell: Shell, python: Python) -> None:
    await python("1")
    result = await shell("python -m venv --without-pip v && . v/bin/activate")
    assert changes(result)["set"] == ["PATH", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"]
    await shell("d=$(echo v/lib/python3*/site-packages); echo 'v = 7' > $d/tiny_one.py")
    assert (await python("import tiny_one; tiny_one.v")).text == "7"
    await shell("deactivate")
    gone = await python("import sys; del sys.modules['tiny_one']; import tiny_one")
    assert gone.error is not None
    assert gone.error.ename == "ModuleNotFoundError"


async def test_late_output_is_in_the_stream_too(session: Session, python: Python) -> None:
    code = "import subprocess; p = subprocess.Popen('cat /tmp/fifo4; echo late', shell=True)"
    await python("import os; os.mkfifo('/tmp/fifo4')")
    first = await session.run_code(RunCode(code=f"{code}; print('now', flush=True)"))
    await first.result()
    assert (await python("open('/tmp/fifo4', 'w').close(); p.wait()")).stdout == ""
    async with asyncio.timeout(5):
        while first.snapshot().stdout != "now\nlate\n":
            await python("1")


async def test_a_cwd_may_end_in_a_slash(shell: Shell, python: Python) -> None:
    assert (await shell("pwd", cwd="/usr/")).stdout == "/usr\n"
    assert (await python("import os; os.getcwd()", cwd="/usr/")).text == "'/usr'"


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11])
async def test_limits_of_output(shell: Shell, python: Python, limit: int) -> None:
    for result in (
        await shell("printf 0123456789", max_output_bytes=limit),
        await python("print('0123456789', end='')", max_output_bytes=limit),
    ):
        left = max(0, 10 - limit)
        assert result.truncated == bool(left)
        assert (result.omitted.stdout if result.omitted else 0) == left
        kept = result.stdout.replace(f"\n[... {left} bytes omitted ...]\n", "")
        assert len(kept) == min(limit, 10)


async def test_a_path_that_leads_nowhere(
    sandbox: Sandbox, session: Session, shell: Shell, python: Python
) -> None:
    result = await shell("export PATH=/nowhere; exit 3")
    assert (result.exit_code, result.shell_exited) == (3, True)
    assert (await shell("echo here")).stdout == "here\n"
    assert (await python("import os; os.environ['PATH']")).text == "'/nowhere'"
    await session.set_env({"PATH": ""})
    process = await sandbox.processes.start(session, StartProcess(command="echo started"))
    await process.wait()
    assert process.logs().stdout == "started\n"
    assert (await shell("echo still")).stdout == "still\n"
