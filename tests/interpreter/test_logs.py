from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from interpreter import logs
from interpreter.bounded_file import BoundedFile
from interpreter.logs import Piece, ProcessLog


def everything(file: BoundedFile) -> list[tuple[int, bytes]]:
    spans, offset = [], 0
    while offset < file.end:
        begin, data = file.read(offset, 1 << 20)
        if data:
            spans.append((begin, data))
        offset = begin + len(data)
    return spans


def stored(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@pytest.mark.parametrize("seed", range(20))
def test_bounded_file_keeps_head_and_tail_exactly(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    limit = rng.randint(4, 400)
    whole = rng.randbytes(rng.randint(0, 5 * limit))
    file = BoundedFile(tmp_path, "out", limit)
    position = 0
    while position < len(whole):
        step = rng.randint(1, limit)
        file.append(whole[position : position + step])
        position += step
        assert stored(tmp_path) <= limit
        if rng.random() < 0.1:
            file.close()
            file = BoundedFile(tmp_path, "out", limit)
    assert file.end == len(whole)
    for begin, data in everything(file):
        assert whole[begin : begin + len(data)] == data
    covered = {begin + n for begin, data in everything(file) for n in range(len(data))}
    assert covered >= set(range(min(len(whole), limit // 2)))
    assert covered >= set(range(max(0, len(whole) - limit // 4), len(whole)))


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("call", ["pwrite", "open"])
def test_what_a_full_disk_does_not_take_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file = BoundedFile(tmp_path, "out", 40)
    file.append(b"x" * 20)
    for _ in range(100):
        with monkeypatch.context() as patch:
            full_disk(patch, call)
            file.append(b"lost")
    file.append(b"again")
    assert everything(file) == [(0, b"x" * 20), (420, b"again")]
    assert file.end == 425
    assert everything(BoundedFile(tmp_path, "out", 40)) == everything(file)


async def pieces(log: ProcessLog) -> list[Piece]:
    return [piece async for piece in log.follow()]


async def test_order_between_the_streams_is_kept(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path)
    for number in range(300):
        log.append("stderr" if number % 3 == 0 else "stdout", b"%d " % number)
    log.finish()
    text = b"".join(piece.data for piece in await pieces(log))
    assert [int(word) for word in text.split()] == list(range(300))
    log.close()
    again = ProcessLog(tmp_path)
    again.finish()
    assert await pieces(again) == await pieces(log)


async def test_a_full_order_file_loses_the_order_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_ORDER_BYTES", 80)
    log = ProcessLog(tmp_path)
    for _ in range(100):
        log.append("stdout", b"o")
        log.append("stderr", b"e")
    log.finish()
    found = await pieces(log)
    for stream, byte in (("stdout", b"o"), ("stderr", b"e")):
        assert b"".join(piece.data for piece in found if piece.stream == stream) == byte * 100
    log.close()


async def test_finish_ends_followers_and_later_output_is_in_the_text(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path)
    log.append("stdout", b"early")
    follower = asyncio.ensure_future(pieces(log))
    await asyncio.sleep(0)
    log.finish()
    log.append("stderr", b"x")
    log.append("stdout", b" late")
    assert await follower == [Piece("stdout", b"early")]
    assert await pieces(log) == [Piece("stdout", b"early")]
    assert log.text("stdout") == "early late"
    log.close()


async def test_text_marks_what_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ProcessLog(tmp_path, kept_bytes=80)
    log.append("stdout", b"0123456789" * 10)
    head, marker, tail = log.text("stdout").split("\n")
    assert head == "01234567890123456789"
    assert marker == f"[... {100 - len(head) - len(tail)} bytes omitted ...]"
    assert ("0123456789" * 10).endswith(tail)
    monkeypatch.setattr(logs, "ANSWER_BYTES", 8)
    assert log.text("stdout") == "0123\n[... 92 bytes omitted ...]\n6789"
    log.close()


async def test_records_removed_under_a_follower_end_it(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path)
    log.append("stdout", b"x" * 200_000)
    follower = log.follow()
    await anext(follower)
    for path in tmp_path.iterdir():
        path.unlink()
    log.close()
    assert [piece.data async for piece in follower if piece.data] == []
