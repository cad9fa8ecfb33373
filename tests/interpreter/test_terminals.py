from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from boxed_session import BoxedSession, boxed_session

from interpreter import terminals
from interpreter.errors import AtCapacity, InvalidRequest, ProcessExited
from interpreter.terminals import Tail, Terminal, Terminals

PROMPT = r"[\w@]+:[^\r\n]*[$#] $"
boxed = pytest.mark.box


class Screen:
    """One attached client: types, and reads until something shows."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._output = terminal.output()

    async def until(self, pattern: str = PROMPT) -> str:
        text = ""
        async with asyncio.timeout(10):
            async for data in self._output:
                text += data.decode(errors="replace")
                if re.search(pattern, text):
                    break
        return re.sub(r"\x1b\[\?2004[hl]|\r", "", text)

    async def rest(self) -> str:
        return b"".join([data async for data in self._output]).decode(errors="replace")

    async def run(self, command: str) -> str:
        """What a command shows, without its echo and the prompt after it."""
        await self.terminal.write(command.encode() + b"\n")
        shown = await self.until()
        return "".join(re.findall(r"[^\n]*\n", shown)[1 + command.count("\n") :])

    async def close(self) -> None:
        await self._output.aclose()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BoxedSession]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        yield session


@pytest.fixture
async def session(
    shared: BoxedSession, request: pytest.FixtureRequest
) -> AsyncIterator[BoxedSession]:
    """A session for each test, in the shared box."""
    session = BoxedSession(shared.box, id=request.node.name[:63])
    yield session


@pytest.fixture
async def opened(session: BoxedSession) -> AsyncIterator[Terminals]:
    opened = Terminals(session.get_box, session)
    yield opened
    await opened.end()
    opened.close()


@pytest.fixture
async def screen(opened: Terminals) -> AsyncIterator[Screen]:
    screen = Screen(await opened.open())
    await screen.until()
    yield screen
    await screen.close()


# The terminal


@boxed
async def test_is_a_terminal_of_its_size(screen: Screen, opened: Terminals) -> None:
    shown = await screen.run("stty size; tty; echo $TERM; test -t 0 && test -t 2; echo $?")
    assert shown == "24 80\n/dev/pts/0\nxterm-256color\n0\n"
    screen.terminal.resize(1000, 1)
    await screen.terminal.write(b"stty size\n")
    await screen.until(r"\r1 1000\r")
    assert await opened.open("default", 120, 40) is screen.terminal
    await screen.terminal.write(b"stty size\n")
    await screen.until(r"\r40 120\r")


@pytest.mark.parametrize("size", [(0, 24), (80, 1001), (-1, 24), (True, 24), (80, "24"), (None, 1)])
async def test_refuses_other_sizes(size: Any, tmp_path: Path) -> None:
    async def no_box() -> Any:
        raise AssertionError("no box is needed to see that")

    with pytest.raises(InvalidRequest):
        await Terminals(no_box, None).open("default", *size)  # type: ignore[arg-type]


@boxed
async def test_all_who_attach_see_it_and_it_lives_on(screen: Screen, opened: Terminals) -> None:
    await screen.run("kept=here")
    await screen.close()
    first, other = Screen(await opened.open()), Screen(await opened.open("default"))
    await first.terminal.write(b"echo still $kept\n")
    for attached in (first, other):
        assert "kept=here" in await attached.until("still here\r\n")
        await attached.close()


@boxed
async def test_ends_with_its_bash(screen: Screen, opened: Terminals) -> None:
    await screen.terminal.write(b"echo last; exit 7\n")
    assert (await screen.rest()).endswith("last\r\nexit\r\n")
    assert screen.terminal.exit_code == 7
    for refused in (screen.terminal.write(b"x"), screen.terminal.write(b"")):
        with pytest.raises(ProcessExited):
            await refused
    with pytest.raises(ProcessExited):
        screen.terminal.resize(80, 24)
    assert (await opened.open()) is not screen.terminal


@boxed
async def test_close_hangs_up_what_runs_in_it(
    screen: Screen,
    session: BoxedSession,
    opened: Terminals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminals, "GRACE", 0.2)
    await screen.terminal.write(b"trap '' HUP; bash -c 'echo pid $$; while :; do sleep 1; done'\n")
    pid = int((await screen.until(r"pid \d+\r")).split("pid ")[-1])
    await asyncio.gather(screen.terminal.close(), screen.terminal.close())
    assert screen.terminal.exit_code == 137
    assert opened.list() == []
    assert await session.box.kill_tree([pid], 0) == []


@boxed
async def test_two_opens_at_once_are_one_and_there_is_an_end(
    opened: Terminals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminals, "MOST_TERMINALS", 2)
    first, second, other = await asyncio.gather(*(opened.open(id) for id in ("a", "a", "b")))
    assert first is second is not other
    with pytest.raises(AtCapacity):
        await opened.open("c")
    await other.close()
    await opened.open("c")


@boxed
async def test_ends_with_its_box(tmp_path: Path) -> None:
    async with boxed_session(tmp_path) as session:
        opened = Terminals(session.get_box, session)
        screen = Screen(await opened.open())
        await screen.until()
        waiting = asyncio.ensure_future(screen.rest())
    assert await waiting == ""
    assert screen.terminal.exit_code == 137


def test_tail_keeps_whole_lines_and_late_readers_skip() -> None:
    tail = Tail(kept_bytes=100)
    start = tail.start()
    assert tail.read(start) == (0, b"")
    tail.append(b"first")
    position, data = tail.read(start)
    assert (position, data) == (5, b"first")
    for number in range(1000):
        tail.append(b"line %d\n" % number)
    late, data = tail.read(position)
    assert data.startswith(b"line ")
    assert data.endswith(b"line 999\n")
    assert len(data) < 200
    assert tail.read(late) == (late, b"")
    assert tail.start() > late - 100
    assert tail.read(tail.start())[1].startswith(b"line ")


# The environment


@boxed
async def test_what_is_changed_there_is_the_sessions(screen: Screen, session: BoxedSession) -> None:
    await screen.run("export A='it'\"'\"'s \"$HOME\"\\ é'; mkdir -p 'd \n'; unset LANG; local=1")
    await screen.run("cd 'd \n'; export EMPTY= B=$'tab\\t\\nline\\377'")
    environment = session.environment
    assert environment.variables["A"] == 'it\'s "$HOME"\\ é'
    assert environment.variables["B"] == "tab\t\nline\udcff"
    assert environment.variables["EMPTY"] == ""
    assert environment.cwd == f"{session.box.paths.workspace}/d \n"
    assert not {"LANG", "local", "TERM", "PS1", "SHLVL", "_"} & environment.variables.keys()


@boxed
async def test_what_others_change_is_there_at_the_next_prompt(
    screen: Screen, session: BoxedSession
) -> None:
    hostile = "'; touch /tmp/bad; '\n$(touch /tmp/bad)`touch /tmp/bad`\\\"!! é\udcff"
    session.environment.merge({"H": hostile, "EMPTY": "", "LANG": None}, "/tmp")
    await screen.run(":")
    shown = await screen.run(
        'printf %s "$H" | od -An -tx1; echo "${LANG-unset}:${EMPTY-unset}:$PWD"'
    )
    *dump, last = shown.splitlines()
    assert bytes.fromhex("".join(dump)) == os.fsencode(hostile)
    assert last == "unset::/tmp"
    assert await screen.run("ls /tmp/bad 2>/dev/null; export -p | grep -c CELLSHELL") == "0\n"
    assert session.environment.variables["H"] == hostile


@boxed
async def test_both_changed_one_name_and_the_terminal_was_last(
    screen: Screen, session: BoxedSession
) -> None:
    session.environment.merge({"N": "theirs", "M": "theirs"})
    await screen.run("export N=mine")
    assert await screen.run("echo $N $M") == "mine theirs\n"
    assert session.environment.variables["N"] == "mine"
    session.environment.merge({"N": "theirs"})
    await screen.run(":")
    assert await screen.run("echo $N") == "theirs\n"
    assert session.environment.variables["N"] == "theirs"


@boxed
async def test_rc_files_stay_the_terminals_own(session: BoxedSession, opened: Terminals) -> None:
    home = session.box.plan.files / "home"
    (home / ".bashrc").write_text("export MINE=rc LANG=C; PROMPT_COMMAND='hook=$?'")
    try:
        screen = Screen(await opened.open())
        await screen.until()
    finally:
        (home / ".bashrc").unlink()
    await screen.run("(exit 3)")
    assert await screen.run("echo $hook $MINE $LANG") == "3 rc C\n"
    assert "MINE" not in session.environment.variables
    assert session.environment.variables["LANG"] == "C.UTF-8"
    session.environment.merge({"LANG": "POSIX"})
    await screen.run(":")
    assert await screen.run("echo $LANG") == "POSIX\n"
    await screen.close()


@boxed
@pytest.mark.parametrize("name", ["builtin", "export", "cd", "printf", "source", "unset", "["])
async def test_functions_of_any_name_do_not_break_the_prompt(
    screen: Screen, session: BoxedSession, name: str
) -> None:
    assert await screen.run(f"function {name} {{ echo BAD; return 1; }}") == ""
    session.environment.merge({"X": "new"}, "/tmp")
    assert await screen.run(":") == ""
    await screen.run(f"\\unset -f {name}" if name != "unset" else "builtin unset -f unset")
    assert await screen.run('echo "$X" "$PWD"') == "new /tmp\n"


@boxed
async def test_shell_options_and_read_only_variables_do_not_break_the_prompt(
    screen: Screen, session: BoxedSession
) -> None:
    await screen.run("readonly FIXED=1; export FIXED; set -euCf; IFS=e; shopt -s nocasematch")
    session.environment.merge({"FIXED": "2", "FREE": "2"}, "/tmp")
    assert await screen.run(":") == ""
    assert await screen.run('echo "$FIXED" "$FREE" "$PWD"') == "1 2 /tmp\n"
    assert await screen.run("set -x") == ""
    assert await screen.run(":") == "+ :\n"
    assert await screen.run("set +eux; unset __cellshell_directory; :") == "+ set +eux\n"
    await screen.run("(exit 9)")
    assert await screen.run("echo $?") == "9\n"


@boxed
async def test_a_prompt_forks_nothing(screen: Screen, session: BoxedSession) -> None:
    session.environment.merge({"MOVED": "1"})
    pids = [int(await screen.run("sh -c 'echo $$'"))]
    session.environment.merge({"MOVED": "2"})
    await screen.run(":")
    pids.append(int(await screen.run("sh -c 'echo $$'")))
    assert pids[1] == pids[0] + 1


@boxed
async def test_taken_up_by_the_next_service(
    session: BoxedSession, opened: Terminals, screen: Screen
) -> None:
    handle = screen.terminal._handle
    await screen.run("export BEFORE=1")
    directory = screen.terminal._environment._directory.name
    live = {
        f"terminal:{session.id}:default:{directory}": session.box.adopt(
            handle.pid, {"pidfd": os.pidfd_open(handle.host_pid), "tty": os.dup(handle.tty or 0)}
        ),
        "terminal:another:default:x": handle,
        f"terminal:{session.id}:default:../../../x": handle,
        "process:x": handle,
    }
    opened.close()
    await opened.restore(session.box, live)
    [terminal] = opened.list()
    again = Screen(terminal)
    assert await again.run("echo $BEFORE") == "1\n"
    session.environment.merge({"AFTER": "2"})
    await again.run("export BEFORE=2")
    assert await again.run("echo $AFTER") == "2\n"
    assert session.environment.variables["BEFORE"] == "2"
    await again.close()
