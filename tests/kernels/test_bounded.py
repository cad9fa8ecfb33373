from __future__ import annotations

import random

import pytest

from kernels.bounded import BoundedText


def test_what_fits_stays_as_it_is():
    kept = BoundedText(10)
    for data in (b"abc", b"", b"defghij"):
        kept.append(data)
    assert (kept.getvalue(), kept.omitted, kept.total) == (b"abcdefghij", 0, 10)


def test_head_and_tail_stay_around_one_line():
    kept = BoundedText(10)
    kept.append(b"abcdefghijklmnopqrstuvwxyz")
    assert kept.getvalue() == b"abcde\n[... 16 bytes omitted ...]\nvwxyz"
    assert kept.omitted == 16


def test_the_line_starts_no_second_line_after_a_newline():
    kept = BoundedText(4)
    kept.append(b"a\n0123456789\n")
    assert kept.getvalue() == b"a\n[... 9 bytes omitted ...]\n9\n"


def test_characters_are_not_torn():
    kept = BoundedText(9)
    kept.append("äöü€äöü€äöü€".encode() * 10)
    head, tail = kept.parts()
    assert head.decode() and tail.decode()
    assert kept.omitted == kept.total - len(head) - len(tail)


@pytest.mark.parametrize("limit", [1, 2, 3, 64])
def test_any_split_gives_the_same(limit: int):
    source = random.Random(limit)
    data = bytes(source.randrange(32, 127) for _ in range(300))
    whole, pieces = BoundedText(limit), BoundedText(limit)
    whole.append(data)
    at = 0
    while at < len(data):
        step = source.randrange(0, 9)
        pieces.append(data[at : at + step])
        at += step
    assert pieces.getvalue() == whole.getvalue()
    assert len(b"".join(whole.parts())) == limit


def test_a_million_appends_stay_small():
    kept = BoundedText(1000)
    for _ in range(1_000_000):
        kept.append(b"x")
    assert kept.omitted == 999_000
    assert len(kept.getvalue()) < 1100
