from __future__ import annotations

import json

import pytest

from kernels import wire


@pytest.mark.parametrize("value", [{"a": [1, None, "ä"]}, "\udcff", {"\ud800": ["x\udc80"]}])
def test_whatever_is_packed_is_json(value: object):
    assert json.loads(wire.pack(value)) == value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": "\\ud800"}', {"a": "�"}),
        (b'["\\ud83d\\ude00", "\\ud83d"]', ["😀", "�"]),
        (b'{"a": NaN, "b": [-Infinity]}', {"a": None, "b": [None]}),
        (b'"\xff"', "�"),
    ],
)
def test_odd_json_is_read_as_json_that_can_be_sent_on(data: bytes, expected: object):
    value = wire.unpack(data)
    assert value == expected
    json.dumps(value, allow_nan=False).encode()


@pytest.mark.parametrize("data", [b"", b"{", b"\0", b"[" * 100_000, b'{"a":' * 2000, b"nan"])
def test_what_is_not_json_is_refused(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        wire.unpack(data)
