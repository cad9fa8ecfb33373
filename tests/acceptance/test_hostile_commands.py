"""Commands that would break a driver that pastes them, or that trusts its shell."""

from __future__ import annotations

import httpx
import pytest

from tests.acceptance.conftest import Run

VALUE = "a'b\"c\n$HOME `id` \\ é😀 "


@pytest.mark.parametrize(
    ("command", "stdout"),
    [
        ("echo 'a b' \"c\"", "a b c\n"),
        ("cat <<'EOF'\n$x `y` \"\nEOF\n", '$x `y` "\n'),
        ("cat <<EOF\nwithout an end", "without an end\n"),
        ("printf 'a\\0b'", "a\0b"),
        ("printf '\\377'", "\ufffd"),
        ("# a comment", ""),
        ("", ""),
        ("echo a \\\n b", "a b\n"),
        ("cat", ""),
        ("declare -F; alias; trap -p; jobs; env | grep POSIX; true", ""),
    ],
)
async def test_output_is_exact(exec: Run, command: str, stdout: str) -> None:
    result = await exec(command)
    assert (result["stdout"], result["exit_code"]) == (stdout, 0)


@pytest.mark.parametrize(
    "command",
    ["echo 'open", 'echo "open', "echo $(open", "if true; then", "done", ")", "}", "&", ";;", "<<"],
)
async def test_syntax_error_is_the_commands_own(exec: Run, command: str) -> None:
    result = await exec(command)
    assert result["exit_code"] == 2
    assert result["stderr"]
    assert (await exec("echo next"))["stdout"] == "next\n"


async def test_functions_named_like_what_drives_the_shell(
    http: httpx.AsyncClient, exec: Run, session: str
) -> None:
    names = "cd builtin eval export unset declare command printf test set trap source . exec"
    names += " return break local readonly true exit type shopt enable"
    body = "{ /bin/echo TAKEN | tee -a /tmp/taken; }"
    await exec("; ".join(f"function {name} {body}" for name in names.split()))
    assert (await exec("(exit 7); /bin/false"))["exit_code"] == 1
    assert (await exec("/bin/pwd", cwd="/tmp"))["stdout"] == "/tmp\n"
    await http.patch(f"{session}/env", json={"QUOTED": VALUE})
    assert (await exec("/usr/bin/printenv QUOTED"))["stdout"] == VALUE + "\n"
    assert (await exec("/bin/ls /tmp"))["stdout"] == "taken\n"
    assert (await exec("/usr/bin/wc -l < /tmp/taken"))["stdout"] == "1\n"
    assert (await exec("cd /; /bin/rm /tmp/taken; kill -9 $$"))["stdout"] == "TAKEN\n"


@pytest.mark.parametrize("how", ["readonly", "declare -i", "declare -u", "declare -a"])
async def test_driver_variable_taken_away(exec: Run, how: str) -> None:
    """The shell could not be driven any more: it ends, with its command's own status."""
    result = await exec(f"{how} POSIXLY_CORRECT=1; (exit 9)", timeout=10)
    assert (result["exit_code"], result["shell_exited"]) == (9, True)
    following = await exec("echo next")
    assert following["stdout"] == "next\n"
    assert [notice["code"] for notice in following["notices"]] == ["shell_restarted"]


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 3", 3), ("exec false", 1), ("kill -9 $$", 137), ("trap 'exit 7' EXIT; exit 4", 7)],
)
async def test_shell_ends_and_comes_back(exec: Run, command: str, status: int) -> None:
    result = await exec(f"echo before; {command}")
    assert (result["stdout"], result["exit_code"]) == ("before\n", status)
    assert result["shell_exited"]
    assert (await exec("echo next"))["stdout"] == "next\n"


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60",
        "trap '' INT TERM; sleep 60; sleep 60",
        "setsid sleep 60 & (setsid sleep 60 &); sleep 60",
        "while :; do :; done",
        "kill -STOP $$",
    ],
)
async def test_timeout_leaves_nothing_running(exec: Run, command: str) -> None:
    result = await exec(command, timeout=0.3)
    assert (result["timed_out"], result["exit_code"]) == (True, None)
    assert (await exec("pgrep -x sleep"))["stdout"] == ""


async def test_job_of_an_earlier_command_is_heard_in_its_own_record(
    http: httpx.AsyncClient, exec: Run, sandbox: str
) -> None:
    first = await exec("mkfifo gate; (read < gate; echo LATE; echo > gate) & echo now")
    second = await exec("echo > gate; read < gate; echo mine")
    assert (first["stdout"], second["stdout"]) == ("now\n", "mine\n")
    record = (await http.get(f"{sandbox}/executions/{first['id']}")).json()
    assert record["stdout"] == "now\nLATE\n"


@pytest.mark.parametrize("stdin", ["!", "é", "a", "\ud7ff"])
async def test_stdin_that_is_not_base64(exec: Run, stdin: str) -> None:
    assert (await exec("cat", stdin=stdin, encoding="base64"))["code"] == "invalid_request"


async def test_environment_too_large_is_said_and_the_rest_kept(exec: Run) -> None:
    fill = "for i in {1..20}; do export B$i=$(head -c 100000 /dev/zero | tr '\\0' x); done; cd /usr"
    result = await exec(fill)
    assert [notice["code"] for notice in result["notices"]] == ["environment_skipped"]
    # What the environment has no room for stays where it was set; the rest is shared.
    assert (await exec("pwd; echo ${#B1} ${#B20}"))["stdout"] == "/usr\n100000 100000\n"
    await exec("cd /workspace; unset ${!B*}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"command": "echo \\ud800"}',
        b'{"command": "x", "env": {"A": "\\udc80"}}',
        b'{"command": "a\\u0000b"}',
        b'{"command": NaN}',
        b'{"command": "x", "timeout": 1e999}',
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b'{"command": "x", "id": "../x"}',
        b'{"command": "x", "env": {"A=B": "1"}}',
        b'{"command": "x", "surplus": 1}',
    ],
)
async def test_bad_body_is_refused_with_a_sentence(
    http: httpx.AsyncClient, session: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await http.post(f"{session}/exec", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert len(answer.json()["detail"]) > 10
