"""What is told of changes in a real box."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest
from boxed_session import boxed_session
from shelf import Shelf, chunks

from interpreter.errors import FileNotFound
from interpreter.events import Event

pytestmark = pytest.mark.box
ROOT = "/workspace/"

TREES = """
import os
for a in range(30):
    for b in range(8):
        os.makedirs(f"d{a}/{b}")
        open(f"d{a}/{b}/f", "w").close()
"""

FLOOD = """
import os, signal
limit = int(open("/proc/sys/fs/inotify/max_queued_events").read())
others = {int(pid) for pid in os.listdir("/proc") if pid.isdigit()} - {os.getpid()}
watchers = [pid for pid in others if "watch.py" in open(f"/proc/{pid}/cmdline").read()]
for pid in watchers:
    os.kill(pid, signal.SIGSTOP)
for n in range(limit // 2 + 100):
    os.mkdir("d")
    os.rmdir("d")
for pid in watchers:
    os.kill(pid, signal.SIGCONT)
"""


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        shelf = Shelf(session)
        yield shelf
        await shelf.files.close()


@pytest.fixture
async def shelf(whole: Shelf) -> AsyncIterator[Shelf]:
    yield whole
    await whole.clear()


def told(event: Event) -> str:
    """`created a`, or `moved a > b`."""
    words = [event.name, event.data["path"].removeprefix(ROOT)]
    if "destination" in event.data:
        words += [">", event.data["destination"].removeprefix(ROOT)]
    return " ".join(words)


async def until(events: AsyncGenerator[Event, None], last: str) -> list[str]:
    """What is told up to `last`; a modification may be told twice, as it is closed later."""
    found: list[str] = []
    async with asyncio.timeout(20):
        async for event in events:
            if event.name != "modified" or told(event) not in found:
                found.append(told(event))
            if found[-1] == last:
                return found
    return found


async def test_a_tree(shelf: Shelf) -> None:
    await shelf.put("old/x")
    async with aclosing(shelf.files.watch(".", recursive=True)) as events:
        assert told(await anext(events)) == "started /workspace"
        await shelf.put("new/deep/a", b"1")
        first = await until(events, "created new/deep/a")
        await shelf.put("new/deep/a", b"2")
        await shelf.files.write("old/x", chunks(b"more"), append=True)
        await shelf.files.move("new", "old/new")
        await shelf.put("old/new/deep/b")
        await shelf.files.copy("old/x", "y")
        await shelf.files.delete("y")
        await shelf.files.delete("old", recursive=True)
        found = first + await until(events, "deleted old")
        assert {"modified new/deep/a", "modified old/x"} <= set(found)
        assert [each for each in found if not each.startswith("modified")] == [
            "created new",
            "created new/deep",
            "created new/deep/a",
            "moved new > old/new",
            "created old/new/deep/b",
            "created y",
            "deleted y",
            "deleted old",
        ]


async def test_one_directory(shelf: Shelf) -> None:
    await shelf.put("sub/x")
    async with aclosing(shelf.files.watch(".")) as events:
        await anext(events)
        await shelf.put("sub/y")
        await shelf.run("sh", "-c", "mv sub/x out; mv out sub/z; ln -s gone l; rm l; mkdir end")
        event = await anext(events)
        assert event.data == {"path": "/workspace/out", "type": "file"}
        expected = ["deleted out", "created l", "deleted l", "created end"]
        assert await until(events, "created end") == expected


async def test_one_file(shelf: Shelf) -> None:
    await shelf.put("a")
    async with aclosing(shelf.files.watch("a")) as events:
        assert told(await anext(events)) == "started a"
        await shelf.put("b")
        await shelf.put("a", b"new")
        await shelf.run("sh", "-c", "echo >> a; mv b a; rm a")
        assert await until(events, "deleted a") == ["modified a", "deleted a"]


async def test_nothing_is_missed_where_directories_appear(shelf: Shelf) -> None:
    async with aclosing(shelf.files.watch(".", recursive=True)) as events:
        await anext(events)
        await shelf.python(TREES)
        await shelf.put("end")
        found = await until(events, "created end")
    expected = {f"created d{a}" for a in range(30)}
    expected |= {f"created d{a}/{b}{f}" for a in range(30) for b in range(8) for f in ("", "/f")}
    created = [each for each in found if each.startswith("created d")]
    assert set(created) == expected and len(created) == len(expected)


async def test_a_flood_is_admitted(shelf: Shelf) -> None:
    async with aclosing(shelf.files.watch(".")) as events:
        await anext(events)
        await shelf.python(FLOOD)
        assert (await until(events, "overflow /workspace"))[-1] == "overflow /workspace"
        await shelf.put("after")
        assert (await until(events, "created after"))[-1] == "created after"


async def test_it_ends_with_what_is_watched(shelf: Shelf) -> None:
    await shelf.files.mkdir("a")
    events = shelf.files.watch("a", recursive=True)
    await anext(events)
    await shelf.files.delete("a")
    assert [told(event) async for event in events] == ["deleted a"]
    with pytest.raises(FileNotFound):
        await anext(shelf.files.watch("a"))


async def test_names_of_any_bytes(shelf: Shelf) -> None:
    async with aclosing(shelf.files.watch(".")) as events:
        await anext(events)
        await shelf.put(os.fsdecode(b"\xff\n"))
        assert (await anext(events)).data["path"] == "/workspace/\ufffd\n"


async def test_a_watcher_that_left_leaves_no_process(shelf: Shelf) -> None:
    events = shelf.files.watch(".")
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await shelf.files.info(".")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await shelf.files.close()
    assert await shelf.run("sh", "-c", "cat /proc/[0-9]*/cmdline | grep -q watch[.]py") == 1
