import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interpreter.blanks import BATCH, MOST, Blanks
from interpreter.journal import Journal, records


@pytest.fixture
async def blanks(tmp_path: Path) -> AsyncIterator[Blanks]:
    blanks = Blanks(tmp_path)
    yield blanks
    await blanks.close()


async def filled(blanks: Blanks, least: int = BATCH) -> None:
    async with asyncio.timeout(10):
        while len(blanks) < least:
            blanks.refill()
            await asyncio.sleep(0.001)


def write(journal: Journal, text: bytes) -> None:
    journal.append(text)
    journal.close()


async def test_a_journal_gets_a_file_that_was_there(blanks: Blanks, tmp_path: Path) -> None:
    await filled(blanks)
    assert list(tmp_path.iterdir()) == []
    had = len(blanks)
    journal = blanks.journal(tmp_path / "a")
    assert len(blanks) == had - 1
    write(journal, b"one")
    assert list(records(tmp_path / "a")) == [b"one"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert Journal(tmp_path / "a").size == journal.size


async def test_more_journals_than_blanks(blanks: Blanks, tmp_path: Path) -> None:
    await filled(blanks)
    for number in range(MOST + 1):
        write(blanks.journal(tmp_path / str(number)), b"%d" % number)
    found = [next(records(tmp_path / str(number))) for number in range(MOST + 1)]
    assert found == [b"%d" % number for number in range(MOST + 1)]


async def test_it_fills_up_and_no_further(blanks: Blanks) -> None:
    await filled(blanks, MOST)
    blanks.refill()
    assert len(blanks) == MOST


async def test_a_name_that_is_taken(blanks: Blanks, tmp_path: Path) -> None:
    write(Journal(tmp_path / "a"), b"there")
    await filled(blanks)
    assert blanks.journal(tmp_path / "a").size > 0


async def test_a_directory_that_has_gone(blanks: Blanks, tmp_path: Path) -> None:
    await filled(blanks)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        blanks.journal(tmp_path / "nowhere" / "a")
    assert len(os.listdir("/proc/self/fd")) == before - 1


async def test_where_each_file_needs_a_name(tmp_path: Path) -> None:
    blanks = Blanks(Path("/proc"))
    blanks.refill()
    write(blanks.journal(tmp_path / "a"), b"one")
    await blanks.close()
    assert len(blanks) == 0
    assert list(records(tmp_path / "a")) == [b"one"]


async def test_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    blanks = Blanks(tmp_path)
    await filled(blanks)
    blanks.refill()
    await blanks.close()
    assert len(os.listdir("/proc/self/fd")) == before
