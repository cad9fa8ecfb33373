from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from boxed_session import BoxedSession, Run, boxed_session, wait_for

from interpreter import process
from interpreter.errors import (
    InvalidCwd,
    InvalidRequest,
    ProcessExists,
    ProcessExited,
    ProcessNotFound,
    StdinClosed,
)
from interpreter.models import Logs, StartProcess
from interpreter.process import Process
from interpreter.processes import Processes

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BoxedSession]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        yield session


@pytest.fixture
async def run(session: BoxedSession, tmp_path: Path) -> AsyncIterator[Run]:
    run = Run(session, tmp_path / "processes")
    yield run
    await run.all.kill_all()
    run.all.close()


async def alive(session: BoxedSession, pid: int) -> bool:
    return bool(await session.box.kill_tree([pid], 0))


# Starting


async def test_runs_in_the_sessions_environment(run: Run) -> None:
    run.session.environment.merge({"COLOUR": "a 'b'\n", "GONE": "x"})
    logs = await run.output(
        'printf "%s|%s|%s|%s" "$COLOUR" "${GONE-unset}" "$OWN" "$PWD"',
        env={"GONE": None, "OWN": "$HOME"},
        cwd="/tmp/.",
    )
    assert logs.stdout == "a 'b'\n|unset|$HOME|/tmp"


async def test_command_is_data(run: Run) -> None:
    command = "cat <<'E'\n'\"$x\\\nE\nexit 3 # '"
    process = await run(command)
    await process.wait()
    assert process.logs().stdout == "'\"$x\\\n"
    assert (process.info().exit_code, process.info().status) == (3, "exited")
    assert process.info().command == command


async def test_command_longer_than_an_argument(run: Run) -> None:
    process = await run(
        f": '{'ä' * 150_000}'\nread line; echo got $line; ls {run.session.box.paths.run}"
    )
    await process.write(b"it\n")
    await process.wait()
    assert process.logs().stdout.startswith("got it\n")
    assert len(process.info().command) < 70_000
    assert "command-" not in (await run.output(f"ls {run.session.box.paths.run}")).stdout


async def test_environment_larger_than_linux_takes(run: Run) -> None:
    with pytest.raises(InvalidRequest, match="2 MiB"):
        await run("true", env={f"V{n}": "x" * 100_000 for n in range(30)})
    assert run.all.list() == []


async def test_missing_cwd_is_refused_and_frees_the_id(run: Run) -> None:
    for cwd in ("/nowhere", "/etc/passwd", "a\nb"):
        with pytest.raises(InvalidCwd):
            await run("true", id="again", cwd=cwd)
    assert (await run("true", id="again")).info().cwd == run.session.environment.cwd


async def test_an_id_is_used_once(run: Run) -> None:
    process = await run("true", id="once")
    await process.wait()
    with pytest.raises(ProcessExists):
        await run("true", id="once")
    with pytest.raises(ProcessNotFound):
        run.all.get("never")


async def test_two_starts_of_one_id_at_once(run: Run) -> None:
    results = await asyncio.gather(*(run("true", id="x") for _ in range(3)), return_exceptions=True)
    assert (
        sorted(type(result).__name__ for result in results) == ["Process"] + ["ProcessExists"] * 2
    )


async def test_a_start_nobody_waits_for_is_listed(run: Run) -> None:
    start = asyncio.ensure_future(run("echo here", id="left"))
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait([start])
    process = await run("true")
    await process.wait()
    await run.all.get("left").wait()
    assert run.all.get("left").logs().stdout == "here\n"


async def test_keeps_the_last_ended_and_every_id(run: Run) -> None:
    for id in ("a", "b", "c", "d", "e"):
        await settled(await run(f"echo {id}", id=id))
    assert [process.id for process in run.all.list()] == ["c", "d", "e"]
    assert run.all.get("c").logs().stdout == "c\n"
    assert os.listdir(run.directory / "a") == ["forgotten"]
    with pytest.raises(ProcessExists):
        await run("true", id="a")


async def settled(process: Process) -> None:
    """Until it and its log are closed, which `exit` does not wait for."""
    await asyncio.gather(*process._tasks)


# Output


async def test_events_replay_and_follow_in_order(run: Run) -> None:
    process = await run("echo 1; echo 2 >&2; read x; echo 3; exit 5")
    first = [event async for event in head(process, 2)]
    await process.write(b"\n")
    events = [event async for event in process.events()]
    assert events[:2] == first
    assert [(event.name, event.data.get("data")) for event in events[:-1]] == [
        ("stdout", "1\n"),
        ("stderr", "2\n"),
        ("stdout", "3\n"),
    ]
    assert events[-1].name == "exit"
    assert events[-1].data["process"]["exit_code"] == 5


async def head(process: Process, count: int) -> AsyncIterator[Any]:
    async for event in process.events():
        yield event
        count -= 1
        if not count:
            return


async def test_events_after_a_number_continue_within_a_piece(run: Run) -> None:
    process = await run("printf 'aé€z'")
    await process.wait()
    rest = {}
    for after in range(8):
        found = [event async for event in process.events(after)]
        rest[after] = "".join(event.data.get("data", "") for event in found)
    assert rest == {0: "aé€z", 1: "é€z", 2: "é€z", 3: "€z", 4: "€z", 5: "€z", 6: "z", 7: ""}


async def test_bytes_that_are_no_text_and_no_final_newline(run: Run) -> None:
    logs = await run.output(r"printf 'a\0\377b\nc'; printf '\303' >&2")
    assert logs == Logs(stdout="a\0\ufffdb\nc", stderr="\ufffd")


async def test_exit_does_not_wait_for_a_child_that_keeps_the_pipe(run: Run) -> None:
    process = await run("(read x; echo late) <&0 & echo early", id="parent")
    events = [event async for event in process.events()]
    assert [event.name for event in events] == ["stdout", "exit"]
    assert process.info().exit_code == 0
    assert not process.settled


async def test_follower_that_leaves_and_many_at_once(run: Run) -> None:
    process = await run("cat")
    left = asyncio.ensure_future(anext(process.events()))
    many = [asyncio.ensure_future(everything(process)) for _ in range(20)]
    await asyncio.sleep(0)
    left.cancel()
    await process.write(b"x" * 300_000)
    await process.close_stdin()
    assert set(await asyncio.gather(*many)) == {"x" * 300_000}


async def everything(process: Process) -> str:
    return "".join([event.data.get("data", "") async for event in process.events()])


async def test_flood_is_bounded_and_marked(session: BoxedSession, tmp_path: Path) -> None:
    all = Processes(session.get_box, tmp_path / "p", kept_bytes=400_000)
    command = "echo head; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo tail"
    flood = await all.start(session, StartProcess(command=command))
    await flood.wait()
    text = await everything(flood)
    assert text.startswith("head\n")
    assert text.endswith("x\ntail\n")
    assert text.count("bytes omitted ...]\n") == 1
    assert flood.logs(tail=1).stdout == "tail\n"
    assert sum(file.stat().st_size for file in (tmp_path / "p" / flood.id).iterdir()) < 401_000
    all.close()


async def test_tail_counts_lines_of_each_stream(run: Run) -> None:
    process = await run("seq 100000; echo; printf 'x\\ny' >&2")
    await process.wait()
    assert process.logs(tail=2) == Logs(stdout="100000\n\n", stderr="x\ny")
    assert process.logs("stderr", 1) == Logs(stderr="y")
    assert process.logs("stdout", 0) == Logs()
    with pytest.raises(InvalidRequest):
        process.logs(tail=-1)


# Input


async def test_stdin_is_open_until_it_is_closed(run: Run) -> None:
    process = await run("cat; echo end")
    await process.write(b"a\0b")
    await process.close_stdin()
    await process.wait()
    assert process.logs().stdout == "a\0bend\n"
    with pytest.raises(ProcessExited):
        await process.write(b"x")
    with pytest.raises(ProcessExited):
        await process.close_stdin()


async def test_stdin_closed_by_either_side(run: Run) -> None:
    process = await run("exec <&-; echo closed; read x <> <(:)")
    await wait_for(process, "log", pattern="closed")
    with pytest.raises(StdinClosed):
        await process.write(b"x")
    sleeping = await run("sleep 1000")
    await sleeping.close_stdin()
    with pytest.raises(StdinClosed):
        await sleeping.write(b"x")


async def test_write_to_one_that_never_reads_can_be_left_or_ends_with_it(run: Run) -> None:
    process = await run("sleep 1000")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.write(b"x" * 500_000)
    waiting = asyncio.ensure_future(process.write(b"y" * 500_000))
    await asyncio.sleep(0)
    await process.kill()
    with pytest.raises(ProcessExited):
        await waiting


# Ending


async def test_ended_by_a_signal_of_its_own(run: Run) -> None:
    process = await run("kill -KILL $$")
    await process.wait()
    info = process.info()
    assert (info.status, info.signal, info.exit_code) == ("killed", "SIGKILL", 137)
    assert info.ended_at
    assert await process.kill() == info


async def test_kill_takes_the_tree_with_what_left_its_group(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    command = """trap '' TERM
        setsid bash -c 'trap "" TERM; echo $$; while :; do sleep 1; done' &
        (setsid setsid bash -c 'trap "" TERM; echo $$; while :; do sleep 1; done' &)
        while :; do sleep 1; done"""
    stubborn = await run(command)
    pids = []
    async with asyncio.timeout(10):
        async for event in stubborn.events():
            pids += [int(word) for word in event.data["data"].split()]
            if len(pids) == 2:
                break
    first, second = await asyncio.gather(stubborn.kill(), stubborn.kill())
    assert first == second
    assert (first.status, first.signal) == ("killed", "SIGKILL")
    assert not [pid for pid in pids if await alive(run.session, pid)]


async def test_kill_ends_a_child_that_outlives_sigterm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    parent = await run("(trap '' TERM; echo $BASHPID; while :; do read -t 1; done) & wait")
    child = int((await wait_for(parent, "log", pattern=r"\d+", regex=True)).line or "")
    assert (await parent.kill()).signal == "SIGTERM"
    assert not await alive(run.session, child)


async def test_kill_lets_it_clean_up(run: Run) -> None:
    process = await run("trap 'echo bye; exit 4' TERM; echo ready; while :; do read -t 0.2; done")
    await wait_for(process, "log", pattern="ready")
    info = await process.kill()
    assert (info.status, info.exit_code, info.signal) == ("exited", 4, None)
    assert process.logs().stdout == "ready\nbye\n"


async def test_stopped_process_is_killed(run: Run) -> None:
    process = await run("sleep 1000")
    await process.signal("SIGSTOP")
    assert (await process.kill()).signal == "SIGTERM"


async def test_signal_reaches_the_tree(run: Run) -> None:
    child = "trap 'echo child; trap - INT; kill -INT $BASHPID' INT; echo ready"
    process = await run(f"({child}; while :; do read -t 0.2; done); echo not reached")
    await wait_for(process, "log", pattern="ready")
    await process.signal("SIGINT")
    await process.wait()
    assert process.logs().stdout == "ready\nchild\n"
    assert process.info().signal == "SIGINT"
    with pytest.raises(ProcessExited):
        await process.signal("SIGINT")


async def test_signal_that_does_not_exist(run: Run) -> None:
    process = await run("sleep 1000")
    for name in ("SIGNOPE", "TERM", "", "SIG_BLOCK"):
        with pytest.raises(InvalidRequest):
            await process.signal(name)


async def test_kill_all_counts_the_running(run: Run) -> None:
    await (await run("true")).wait()
    await run("sleep 1000")
    await run("sleep 1000")
    assert await run.all.kill_all() == 2
    assert await run.all.kill_all() == 0


# The service goes and comes back


async def test_taken_up_by_the_next_service(run: Run) -> None:
    session, box = run.session, run.session.box
    gone = await run("echo was; exit 3", id="gone")
    await gone.wait()
    lost = await run("sleep 1000", id="lost")
    cat = await run("echo before; cat", id="cat")
    await wait_for(cat, "log", pattern="before")
    result, fds = await handed_out(run, "cat")
    run.all.close()
    await box.kill_tree([lost.info().pid], signal.SIGKILL)

    run.all = Processes(session.get_box, run.directory)
    await run.all.restore(box, {"process:cat": box.adopt(result, fds)})
    assert [process.id for process in run.all.list()] == ["gone", "lost", "cat"]
    assert run.all.get("gone").info() == gone.info()
    assert [event.name async for event in run.all.get("gone").events()] == ["stdout", "exit"]
    assert run.all.get("lost").info().signal == "SIGKILL"
    cat = run.all.get("cat")
    await cat.write(b"after\n")
    await cat.close_stdin()
    await cat.wait()
    assert cat.logs().stdout == "before\nafter\n"
    with pytest.raises(ProcessExists):
        await run("true", id="gone")


async def handed_out(run: Run, id: str) -> tuple[int, dict[str, int]]:
    """What init would hand to the next service."""
    handle = run.all.get(id)._handle
    assert handle
    fds = {
        "pidfd": os.pidfd_open(handle.host_pid),
        "stdin": os.dup(handle.stdin or 0),
        "stdout": os.dup(handle.stdout or 0),
        "stderr": os.dup(handle.stderr or 0),
    }
    return handle.pid, fds


async def test_all_are_killed_with_their_box(tmp_path: Path) -> None:
    async with boxed_session(tmp_path) as session:
        run = Run(session, tmp_path / "processes")
        process = await run("echo here; sleep 1000")
        await wait_for(process, "log", pattern="here")
        waiting = asyncio.ensure_future(everything(process))
    assert await waiting == "here\n"
    info = process.info()
    assert (info.status, info.signal, info.exit_code) == ("killed", "SIGKILL", 137)
    with pytest.raises(ProcessExited):
        await process.write(b"x")
    run.all.close()
