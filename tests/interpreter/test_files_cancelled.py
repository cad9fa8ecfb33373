"""File operations given up at any moment: nothing of them stays."""

from __future__ import annotations

import asyncio
import io
import random
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from boxed_session import boxed_session
from shelf import Shelf, chunks

from interpreter.errors import Conflict, FileNotFound

pytestmark = pytest.mark.box
LONGEST = 0.12


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a", "d/b", "d/c"):
            member = tarfile.TarInfo(name)
            member.size = 500_000
            archive.addfile(member, io.BytesIO(bytes(500_000)))
    return out.getvalue()


def operations(shelf: Shelf, choose: random.Random) -> list[Callable[[], Awaitable[object]]]:
    files, packed = shelf.files, tar()

    def copy() -> str:
        return f"copy{choose.randrange(2)}"

    async def archive() -> None:
        async for _ in files.archive("tree"):
            continue

    async def watch() -> None:
        async for _ in files.watch(".", recursive=True):
            continue

    return [
        lambda: files.write("made/written", chunks(*[bytes(300_000)] * 5)),
        lambda: files.write("added", chunks(b"x"), append=True),
        lambda: files.copy("tree", copy()),
        lambda: files.move(copy(), copy()),
        lambda: files.move("tree/a", "/tmp/a"),
        lambda: files.move("/tmp/a", "tree/a"),
        lambda: files.delete(copy(), recursive=True),
        lambda: files.extract("unpacked", chunks(packed[:700_000], packed[700_000:])),
        lambda: files.list(recursive=True),
        archive,
        watch,
    ]


async def give_up(operation: Callable[[], Awaitable[object]], after: float) -> bool:
    """Whether it was given up before its end."""
    try:
        async with asyncio.timeout(after):
            await operation()
    except TimeoutError:
        return True
    except (FileNotFound, Conflict):
        return False
    return False


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path) as session:
        yield Shelf(session)


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_left(shelf: Shelf, seed: int) -> None:
    choose = random.Random(seed)
    await shelf.put("tree/a", bytes(2_000_000))
    await shelf.put("tree/d/b")
    choices = operations(shelf, choose)
    given_up = 0
    rounds = 0
    while rounds < 12 or given_up <= 10:
        rounds += 1
        some = [give_up(choose.choice(choices), choose.random() * LONGEST) for _ in range(5)]
        given_up += sum(await asyncio.gather(*some))
    await shelf.files.close()
    assert list(Path(shelf.session.box.plan.files).rglob(".cellshell-*~")) == []
    assert (
        await shelf.run("sh", "-c", "cat /proc/[0-9]*/cmdline | grep -aq 'guest/[watp].*[.]py'")
        == 1
    )
