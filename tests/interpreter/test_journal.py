from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from interpreter.journal import Journal, records


async def test_a_follower_gets_everything_in_order_and_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(b"0")
    got: list[bytes] = []

    async def follow() -> None:
        async for record in journal.follow():
            got.append(record)  # noqa: PERF401

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        for number in range(1, 500):
            journal.append(str(number).encode() * number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        journal.close()
    assert got == [b"0", *(str(number).encode() * number for number in range(1, 500))]


async def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(b"whole", b"torn")
    journal.close()
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-2])
    again = Journal(tmp_path / "j")
    again.append(b"next")
    again.close()
    assert list(records(tmp_path / "j")) == [b"whole", b"next"]


@pytest.mark.parametrize("record", [b"", b"\0" * 10, b"x" * 1_000_000])
async def test_any_bytes_are_a_record(tmp_path: Path, record: bytes) -> None:
    journal = Journal(tmp_path / "j")
    journal.append(record, b"end")
    journal.close()
    assert list(records(tmp_path / "j")) == [record, b"end"]
