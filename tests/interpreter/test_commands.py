"""A session's shell: commands are data, output is exact, the end is told."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from asking import Python, Shell, shell_of

from interpreter.errors import (
    ExecutionMismatch,
    ExecutionOver,
    InvalidCwd,
    InvalidRequest,
    QueueFull,
    SessionDeleted,
)
from interpreter.models import CreateSession, Exec
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

CASES = {
    "echo hi": ("hi\n", "", 0),
    "echo -n hi": ("hi", "", 0),
    "echo err >&2; exit_code() { return 3; }; exit_code": ("", "err\n", 3),
    "echo 'it''s' \"a \\\"b\\\"\"": ('its a "b"\n', "", 0),
    "cat <<'EOF'\n$HOME `id`\nEOF": ("$HOME `id`\n", "", 0),
    "cat <<EOF\nhi\nEOF": ("hi\n", "", 0),
    "# only a comment": ("", "", 0),
    "": ("", "", 0),
    "\n\n": ("", "", 0),
    "echo a; # comment": ("a\n", "", 0),
    "echo a\\\nb": ("ab\n", "", 0),
    "printf '%s\\n' \"$(printf 'x\\ny')\"": ("x\ny\n", "", 0),
    "echo ünïcödé ☃": ("ünïcödé ☃\n", "", 0),
    "(exit 42)": ("", "", 42),
    "sh -c 'kill -TERM $$'": ("", "", 143),
    "cat": ("", "", 0),
    "[[ -t 0 ]] && echo tty": ("", "", 1),
    "false": ("", "", 1),
    "return 7": ("", "", 7),
    "jobs; trap -p; declare -F; alias": ("", "", 0),
    "true & wait; echo done": ("done\n", "", 0),
    "ls /proc/self/fd | tr '\\n' ' '": ("0 1 2 3 ", "", 0),
    "echo $0": ("bash\n", "", 0),
}


@pytest.mark.parametrize("command", CASES)
async def test_a_command_runs_exactly_as_it_is(shell: Shell, command: str) -> None:
    result = await shell(command)
    assert (result.stdout, result.stderr, result.exit_code) == CASES[command]
    assert not result.shell_exited
    assert (await shell("echo next")).stdout == "next\n"


BROKEN = [
    "echo 'open",
    'echo "open',
    "echo $(",
    "if",
    "for x in",
    "fi",
    "a b ( c",
    "<",
    "cat <<X",
    "}",
]


@pytest.mark.parametrize("command", BROKEN)
async def test_broken_syntax_is_an_error_of_that_command_alone(shell: Shell, command: str) -> None:
    await shell("mine() { echo mine; }")
    result = await shell(command)
    assert result.exit_code != 0 or "here-document" in result.stderr
    assert result.stderr != ""
    if command == "echo $(":  # bash's own heap is damaged by it: a fresh one takes over
        assert [notice.code for notice in (await shell("true")).notices] == ["shell_restarted"]
    else:
        assert (await shell("mine")).stdout == "mine\n"


NAMES = [
    "cd",
    "echo",
    "eval",
    "builtin",
    "command",
    "unset",
    "export",
    "exit",
    "set",
    "shopt",
    "declare",
    "typeset",
    "read",
    "printf",
    "source",
    "trap",
    "return",
    "test",
    "local",
    "exec",
    "times",
    "shift",
    "break",
    "continue",
    "readonly",
    "pwd",
    "true",
    "false",
    "kill",
    "wait",
    "type",
]


async def test_functions_may_have_any_name(session: Session, shell: Shell) -> None:
    for name in NAMES:
        await shell(f"function {name} {{ /bin/echo mine; }}")
    assert (await shell("eval; export; unset")).stdout == "mine\nmine\nmine\n"
    await session.set_env({"FROM": "outside"})
    session.environment.merge({}, "/usr/lib")
    result = await shell("/bin/pwd; /bin/echo $FROM; cd; builtin")
    assert result.stdout == "/usr/lib\noutside\nmine\nmine\n"


async def test_aliases_may_have_any_name(shell: Shell) -> None:
    await shell("shopt -s expand_aliases; alias eval='echo no' unset=false export=false .=false")
    assert (await shell("A=1; echo ok")).stdout == "ok\n"
    assert (await shell("alias")).stdout.count("alias") == 4


@pytest.mark.parametrize("name", ["x", "REPLY", "IFS", "PS1", "PS4", "i", "status", "out", "line"])
async def test_variables_of_any_name(shell: Shell, name: str) -> None:
    await shell(f"{name}='a b'")
    assert (await shell(f'echo "${name}"')).stdout == "a b\n"


@pytest.mark.parametrize("option", ["-u", "-f", "-x", "-v", "-C", "-n", "-m", "-a", "-o posix"])
async def test_shell_options_do_not_disturb(shell: Shell, option: str) -> None:
    await shell(f"set {option}")
    result = await shell("echo fine")
    assert result.stdout == "fine\n"
    assert "POSIXLY" not in result.stderr or option == "-v"  # said in docs/shell.md
    assert "POSIXLY" not in (await shell("set +x; env")).stdout


async def test_options_last_from_command_to_command(shell: Shell) -> None:
    await shell("set -o pipefail; shopt -s nullglob; shopt -u expand_aliases")
    assert (await shell("set -o | grep pipefail")).stdout.split() == ["pipefail", "on"]
    state = await shell("shopt nullglob expand_aliases inherit_errexit")
    assert state.stdout.split() == [
        "nullglob", "on", "expand_aliases", "off", "inherit_errexit", "off",
    ]  # fmt: skip


async def test_the_last_status_is_kept(shell: Shell) -> None:
    for status in (0, 1, 42):
        await shell(f"(exit {status})")
        assert (await shell("echo $?")).stdout == f"{status}\n"


async def test_state_lives_on(shell: Shell) -> None:
    await shell("f() { echo f; }; alias g='echo g'; h=1; a=(x y)")
    assert (await shell("f; g; echo $h ${a[1]}")).stdout == "f\ng\n1 y\n"


async def test_bytes_are_exact(shell: Shell) -> None:
    result = await shell("printf 'a\\0\\377\\n'; printf 'e\\0' >&2", encoding="base64")
    assert base64.b64decode(result.stdout) == b"a\0\xff\n"
    assert base64.b64decode(result.stderr) == b"e\0"
    assert (await shell("printf 'a\\0\\377'")).stdout == "a\0\ufffd"


async def test_stdin(shell: Shell) -> None:
    assert (await shell("cat; echo end", stdin="line\nlast")).stdout == "line\nlastend\n"
    data = base64.b64encode(bytes(range(256)) * 1000).decode()
    result = await shell("sha256sum | cut -c1-6; wc -c", stdin=data, encoding="base64")
    assert base64.b64decode(result.stdout).endswith(b"\n0\n")
    with pytest.raises(InvalidRequest):
        await shell("cat", stdin="not base64!", encoding="base64")


async def test_a_large_command(shell: Shell) -> None:
    text = "x" * 2_000_000
    assert (await shell(f"v={text}; echo ${{#v}}")).stdout == "2000000\n"


async def test_ten_megabytes_of_short_lines(shell: Shell) -> None:
    started = time.monotonic()
    result = await shell("yes | head -c 10000000", max_output_bytes=16_000_000)
    assert len(result.stdout) == 10_000_000
    assert time.monotonic() - started < 2


async def test_long_output_keeps_head_and_tail(shell: Shell) -> None:
    result = await shell("seq 1 100000; echo e >&2", max_output_bytes=1000, keep_output=True)
    assert result.truncated
    assert result.stdout.startswith("1\n2\n")
    assert result.stdout.endswith("\n100000\n")
    assert f"[... {result.omitted.stdout} bytes omitted ...]\n" in result.stdout  # type: ignore[union-attr]
    assert (await shell(f"wc -l < {result.output_path}")).stdout == "100001\n"


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1000; echo after",
        "while :; do :; done",
        "while :; do sleep 0.01; done",
        "cat <(sleep 1000)",
        "setsid sleep 1000",
        "(setsid setsid sleep 1000 &) ; sleep 1001",
        "read x < <(sleep 1000)",
        "wait $(sleep 1000)",
    ],
)
async def test_a_timeout_ends_it_and_leaves_the_shell(shell: Shell, command: str) -> None:
    await shell("mine() { echo mine; }")
    result = await shell(f"echo before; {command}", timeout=0.3)
    assert (result.timed_out, result.exit_code, result.stdout) == (True, None, "before\n")
    after = await shell("mine; ps ax | grep -c '[s]leep 100'")
    assert after.stdout == "mine\n0\n"
    assert after.notices == []


async def test_what_ignores_interrupts_is_killed(shell: Shell) -> None:
    result = await shell("trap '' INT TERM; while :; do sleep 0.1; done", timeout=0.3)
    assert [notice.code for notice in result.notices] == ["killed_harder"]
    after = await shell("echo fresh")
    assert after.stdout == "fresh\n"
    assert [notice.code for notice in after.notices] == ["shell_restarted"]


async def test_what_earlier_commands_left_running_lives(shell: Shell) -> None:
    await shell("sleep 1234 & echo $!")
    await shell("sleep 1235", timeout=0.3)
    assert (await shell("pgrep -fc 'sleep 123[4]'; kill %1")).stdout == "1\n"


async def test_cancel(session: Session, shell: Shell) -> None:
    await shell("mine() { echo mine; }")
    execution = await session.exec(Exec(command="cd /tmp; echo before; sleep 1000"))
    async for event in execution.events():
        if event.name == "stdout":
            break
    await execution.cancel()
    result = await execution.result()
    assert (result.cancelled, result.exit_code, result.stdout) == (True, None, "before\n")  # type: ignore[union-attr]
    with pytest.raises(ExecutionOver):
        await execution.cancel()
    assert (await shell("mine; pwd")).stdout == "mine\n/tmp\n"


async def test_a_queued_command_is_cancelled_without_running(
    session: Session, shell: Shell
) -> None:
    first = await session.exec(Exec(command="sleep 1000"))
    second = await session.exec(Exec(command="touch ran"))
    assert second.state == "queued"
    await second.cancel()
    await first.cancel()
    assert (await second.result()).cancelled  # type: ignore[union-attr]
    assert (await shell("ls ran")).exit_code != 0


async def test_late_output_belongs_to_its_own_command(session: Session, shell: Shell) -> None:
    execution = await session.exec(
        Exec(command="mkfifo /tmp/go3; (cat /tmp/go3 >/dev/null; echo late) & echo now")
    )
    assert (await execution.result()).stdout == "now\n"
    assert (await shell("echo > /tmp/go3; wait; echo mine")).stdout == "mine\n"
    async with asyncio.timeout(5):
        while execution.snapshot().stdout != "now\nlate\n":
            await shell("true")


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 3", 3), ("exit", 0), ("kill -9 $$", 137), ("exec true", 0), ("set -e; false", 1)],
)
async def test_the_end_of_the_shell_is_told(shell: Shell, command: str, code: int) -> None:
    result = await shell(f"echo out; {command}; echo never")
    assert (result.stdout, result.exit_code, result.shell_exited) == ("out\n", code, True)
    after = await shell("echo fresh")
    assert after.stdout == "fresh\n"
    assert [notice.code for notice in after.notices] == ["shell_restarted"]


async def test_exit_keeps_what_the_command_changed(shell: Shell) -> None:
    result = await shell("export KEPT='a b'; cd /tmp; exit 4")
    assert result.environment_changes.set == ["KEPT"]
    assert (await shell('echo "$KEPT"; pwd')).stdout == "a b\n/tmp\n"


async def test_commands_queue_in_order(session: Session) -> None:
    executions = [await session.exec(Exec(command=f"echo {n} >> order")) for n in range(20)]
    await asyncio.gather(*(execution.result() for execution in executions))
    assert (await shell_of(session)("cat order")).stdout.split() == [str(n) for n in range(20)]


async def test_the_queue_has_an_end(session: Session) -> None:
    running = await session.exec(Exec(command="sleep 1000"))
    await asyncio.sleep(0)
    queued = [await session.exec(Exec(command="true")) for _ in range(100)]
    with pytest.raises(QueueFull):
        await session.exec(Exec(command="true"))
    await running.cancel()
    assert [(await each.result()).exit_code for each in queued] == [0] * 100  # type: ignore[union-attr]


async def test_twenty_sessions_at_once(sandbox: Sandbox) -> None:
    sessions = [await sandbox.create_session(CreateSession()) for _ in range(20)]
    results = await asyncio.gather(
        *(shell_of(each)(f"export ME={each.id}; echo $ME") for each in sessions)
    )
    assert [result.stdout.strip() for result in results] == [each.id for each in sessions]
    await asyncio.gather(*(sandbox.delete_session(each.id) for each in sessions))


async def test_deleting_a_session_answers_its_callers(sandbox: Sandbox) -> None:
    session = await sandbox.create_session(CreateSession())
    running = await session.exec(Exec(command="sleep 1000"))
    queued = await session.exec(Exec(command="true"))
    await sandbox.delete_session(session.id)
    for execution in (running, queued):
        with pytest.raises(SessionDeleted):
            await execution.result()
    with pytest.raises(SessionDeleted):
        await session.exec(Exec(command="true"))


async def test_a_missing_cwd_for_one_call(shell: Shell) -> None:
    with pytest.raises(InvalidCwd):
        await shell("touch ran", cwd="/no/such")
    assert (await shell("ls ran")).exit_code != 0


async def test_a_retry_finds_the_same_execution(session: Session, shell: Shell) -> None:
    request = Exec(command="echo x >> once; cat once", id="retry-1")
    first = await session.exec(request)
    again = await session.exec(request)
    assert again is first
    assert (await again.result()).stdout == "x\n"
    with pytest.raises(ExecutionMismatch):
        await session.exec(Exec(command="other", id="retry-1"))


async def test_events_can_be_replayed(session: Session) -> None:
    execution = await session.exec(Exec(command="echo a; echo b >&2"))
    live = [event async for event in execution.events()]
    assert [event.number for event in live] == list(range(1, len(live) + 1))
    assert live[0].name == "started"
    assert live[-1].name == "done"
    assert [event async for event in execution.events()] == live
    assert [event async for event in execution.events(after=2)] == live[2:]


async def test_the_first_byte_comes_at_once(session: Session) -> None:
    execution = await session.exec(Exec(command="echo now; sleep 1000"))
    started = time.monotonic()
    async for event in execution.events():
        if event.name == "stdout":
            break
    assert time.monotonic() - started < 0.5
    await execution.cancel()


async def test_a_sandbox_without_network_says_so(shell: Shell, python: Python) -> None:
    result = await shell("git ls-remote https://example.org/x")
    assert [notice.code for notice in result.notices] == ["network_none"]
    code = "import socket; socket.getaddrinfo('example.org', 443)"
    assert [notice.code for notice in (await python(code)).notices] == ["network_none"]
    assert (await shell("cat /no/such")).notices == []
