from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path

import pytest

from interpreter.errors import ExecutionForgotten, ExecutionNotFound, NotReady
from interpreter.events import pack_text
from interpreter.executions import Executions
from interpreter.journal import Journal, records
from interpreter.models import Exec, ExecResult
from interpreter.settings import Settings


def executions(path: Path, **options: int) -> Executions:
    return Executions(path / "executions", Settings(home=path, **options))  # type: ignore[arg-type]


def result(id: str, stdout: str = "") -> ExecResult:
    return ExecResult(id=id, command="c", exit_code=0, stdout=stdout, duration=0.1, cwd="/")


async def test_records_outlive_the_service(tmp_path: Path) -> None:
    first = executions(tmp_path)
    done = first.begin("exec", "s", Exec(command="c", id="done"))
    done.start({})
    done.emit("stdout", {"data": "x"})
    done.finish(result("done", "x"))
    cut = first.begin("exec", "s", Exec(command="c", id="cut"))
    cut.start({})

    second = executions(tmp_path)
    assert (await second.get("done").result()).stdout == "x"
    names = [event.name async for event in second.get("done").events()]
    assert names == ["started", "stdout", "done"]
    [cut] = second.unfinished()
    assert (cut.id, cut.state, cut.started_at, cut.request) == (
        "cut",
        "running",
        first.get("cut").started_at,
        {"command": "c", "id": "cut"},
    )
    cut.emit("stdout", {"data": "on"})
    cut.fail(NotReady("gone"))
    events = [(event.number, event.name) async for event in cut.events(after=1)]
    assert events == [(2, "stdout"), (3, "error")]


async def test_a_result_whose_event_was_never_written(tmp_path: Path) -> None:
    first = executions(tmp_path).begin("exec", "s", Exec(command="c", id="torn"))
    first.start({})
    first.finish(result("torn", "x"))
    path = tmp_path / "executions" / "torn"
    whole = list(records(path))
    path.write_bytes(path.read_bytes()[: -len(whole[-1]) - 2])
    again = executions(tmp_path).get("torn")
    assert (await again.result()).stdout == "x"
    names = [event.name async for event in again.events()]
    assert names == ["started", "done"]


async def test_what_this_service_leaves_is_not_over(tmp_path: Path) -> None:
    execution = executions(tmp_path).begin("exec", "s", Exec(command="c", id="left"))
    execution.start({})
    waiting = asyncio.ensure_future(execution.result())
    await asyncio.sleep(0)
    execution.leave()
    with pytest.raises(NotReady, match="goes on"):
        await waiting
    with pytest.raises(NotReady, match="goes on"):
        _ = [event async for event in execution.events()]
    assert executions(tmp_path).get("left").state == "running"


async def test_the_oldest_are_forgotten_and_their_ids_stay_used(tmp_path: Path) -> None:
    some = executions(tmp_path, kept_executions=3)
    for number in range(5):
        execution = some.begin("exec", "s", Exec(command="c", id=f"e{number}"))
        execution.finish(result(execution.id))
    assert len(some) == 3
    with pytest.raises(ExecutionForgotten):
        some.get("e0")
    with pytest.raises(ExecutionForgotten):
        some.begin("exec", "s", Exec(command="c", id="e0"))
    with pytest.raises(ExecutionNotFound):
        some.get("never")
    assert len(list((tmp_path / "executions").iterdir())) == 3


async def test_a_large_result_is_read_from_its_record(tmp_path: Path) -> None:
    execution = executions(tmp_path).begin("exec", "s", Exec(command="c"))
    execution.finish(result(execution.id, "x" * 1_000_000))
    assert execution._result is None
    assert len((await execution.result()).stdout) == 1_000_000


async def test_late_output_is_added_and_bounded(tmp_path: Path) -> None:
    execution = executions(tmp_path).begin("exec", "s", Exec(command="c"))
    execution.finish(result(execution.id, "now\n"))
    execution.late({"stream": "stdout", "data": "late\n"})
    assert (await execution.result()).stdout == "now\nlate\n"
    for _ in range(50):
        execution.late({"stream": "stdout", "data": "x" * 100_000})
    assert len((await execution.result()).stdout) < 1_100_000


@pytest.mark.parametrize("id", ["forgotten", "executions", "a.b", "A-_"])
async def test_any_id_is_just_an_id(tmp_path: Path, id: str) -> None:
    execution = executions(tmp_path).begin("exec", "s", Exec(command="c", id=id))
    execution.finish(result(id))
    assert (await executions(tmp_path).get(id).result()).id == id


@pytest.mark.parametrize("text", ["y\n" * 50_000, "]" * 40_000, "é\ud800\0" * 20_000])
async def test_a_long_output_is_kept_as_it_is(tmp_path: Path, text: str) -> None:
    first = executions(tmp_path)
    long = first.begin("exec", "s", Exec(command="c", id="long"))
    long.start({})
    long.finish(result("long", text))
    for kept in (first, executions(tmp_path)):
        found = kept.get("long").snapshot()
        assert isinstance(found, ExecResult)
        assert (found.stdout, found.stderr, found.exit_code) == (text, "", 0)
    assert [entry.kind for entry in long.entries()] == ["meta", "event", "result", "event"]


@pytest.mark.parametrize("pieces", [["y\n" * 50_000], ["é" * 20_000, "", "]" * 20_000]])
async def test_what_events_have_told_is_written_once(tmp_path: Path, pieces: list[str]) -> None:
    text = "".join(pieces)
    first = executions(tmp_path)
    long = first.begin("exec", "s", Exec(command="c", id="long"))
    long.start({})
    for piece in pieces:
        long.emit("stdout", {"data": piece})
    long.emit("stderr", {"data": "of another"})
    long.finish(result("long", text).model_copy(update={"stderr": "of another"}))
    assert (tmp_path / "executions" / "long").stat().st_size < len(text.encode()) * 1.6
    for kept in (first, executions(tmp_path)):
        found = kept.get("long").snapshot()
        assert isinstance(found, ExecResult)
        assert (found.stdout, found.stderr) == (text, "of another")
        done = [event async for event in kept.get("long").events()][-1]
        assert "told" not in done.data


@pytest.mark.parametrize("truncated", [True, False])
async def test_what_events_have_not_told_is_written(tmp_path: Path, truncated: bool) -> None:
    """The same number of characters, and others."""
    told, text = "a" * 40_000, "b" * (40_000 if truncated else 40_001)
    long = executions(tmp_path).begin("exec", "s", Exec(command="c", id="long"))
    long.start({})
    long.emit("stdout", {"data": told})
    long.finish(result("long", text).model_copy(update={"truncated": truncated}))
    found = executions(tmp_path).get("long").snapshot()
    assert isinstance(found, ExecResult)
    assert found.stdout == text


async def test_pieces_in_base64_do_not_add_up(tmp_path: Path) -> None:
    """Here they have the same number of characters as the whole."""
    pieces = [b"a" * 65_536, b"b" * 30_000]
    text = b64encode(b"".join(pieces)).decode()
    long = executions(tmp_path).begin("exec", "s", Exec(command="c", id="long", encoding="base64"))
    long.start({})
    for piece in pieces:
        long.emit("stdout", {"data": b64encode(piece).decode()})
    long.finish(result("long", text))
    found = executions(tmp_path).get("long").snapshot()
    assert isinstance(found, ExecResult)
    assert found.stdout == text


async def test_a_service_killed_while_it_wrote_a_long_output(tmp_path: Path) -> None:
    """The text is whole, and the result that should follow is not there: it is not over."""
    cut = executions(tmp_path).begin("exec", "s", Exec(command="c", id="cut"))
    cut.start({})
    cut.leave()
    journal = Journal(tmp_path / "executions" / "cut")
    journal.append(pack_text("stdout", "y\n" * 50_000))
    journal.close()
    again = executions(tmp_path).get("cut")
    assert again.state == "running"
    again.finish(result("cut", "x" * 40_000))
    found = executions(tmp_path).get("cut").snapshot()
    assert isinstance(found, ExecResult)
    assert found.stdout == "x" * 40_000
