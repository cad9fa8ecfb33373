from __future__ import annotations

import pytest

from api.ranges import unchanged, wanted_range
from interpreter.errors import RangeNotSatisfiable

ETAG = '"a-1"'


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("bytes=0-4", (0, 5)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99999999", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("Bytes = 9-9", (9, 10)),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-4", None),
        ("bytes=a-b", None),
        ("bytes=٣-", None),
        ("", None),
    ],
)
def test_one_range_is_understood(given: str, part: tuple[int, int] | None) -> None:
    assert wanted_range({"range": given}, ETAG, 10) == part


@pytest.mark.parametrize(
    ("given", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)]
)
def test_a_range_outside_the_file_is_refused(given: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        wanted_range({"range": given}, ETAG, size)
    assert caught.value.details["size"] == size


@pytest.mark.parametrize(
    ("if_range", "part"), [(ETAG, (0, 2)), ('"b"', None), (f"W/{ETAG}", None), ("Mon, 1 Jan", None)]
)
def test_if_range_wants_the_same_version(if_range: str, part: tuple[int, int] | None) -> None:
    assert wanted_range({"range": "bytes=0-1", "if-range": if_range}, ETAG, 10) == part


@pytest.mark.parametrize(
    ("known", "same"),
    [(ETAG, True), (f"W/{ETAG}", True), (f'"x", {ETAG}', True), ("*", True), ('"x"', False)],
)
def test_if_none_match_knows_a_version(known: str, same: bool) -> None:
    assert unchanged({"if-none-match": known}, ETAG) is same


def test_without_if_none_match_nothing_is_known() -> None:
    assert not unchanged({}, ETAG)
