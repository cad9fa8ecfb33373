"""Frames of both kinds, held against Jupyter Server's own description of them."""

from __future__ import annotations

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.jupyter_frames import from_legacy, from_v1, to_legacy, to_v1
from kernels.packets import Packet

HEADER = b'{"msg_id":"1","msg_type":"comm_msg"}'
JSON = st.dictionaries(st.text(), st.text() | st.integers(0, 9)).map(
    lambda value: json.dumps(value).encode()
)
PACKETS = st.builds(
    Packet,
    channel=st.sampled_from(["shell", "control", "stdin", "iopub"]),
    header=st.just(HEADER),
    parent=JSON,
    metadata=JSON,
    content=JSON,
    buffers=st.lists(st.binary(max_size=50), max_size=4),
)


@given(PACKETS)
def test_there_and_back(packet: Packet) -> None:
    assert from_v1(to_v1(packet)) == packet
    again = from_legacy(to_legacy(packet))
    assert again.channel == packet.channel
    assert list(again.buffers) == list(packet.buffers)
    for one, other in zip(again.parts(), packet.parts(), strict=True):
        assert json.loads(one) == json.loads(other)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_frame(frame: bytes) -> None:
    for read in (from_v1, from_legacy):
        try:
            read(frame)
        except ValueError:
            continue


def test_v1() -> None:
    """Count, offsets and parts, as `jupyter_server` lays them out."""
    parts = [b"iopub", HEADER, b"{}", b"{}", b'{"a":1}', b"\x00\xff"]
    frame = to_v1(Packet("iopub", HEADER, content=b'{"a":1}', buffers=[b"\x00\xff"]))
    (count,) = struct.unpack_from("<Q", frame)
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    assert count == len(parts) + 1
    assert offsets[0] == 8 * (count + 1)
    assert offsets[-1] == len(frame)
    assert [frame[a:b] for a, b in pairwise(offsets)] == parts


def test_legacy_has_the_servers_copies() -> None:
    message = json.loads(to_legacy(Packet("shell", HEADER, content=b'{"a":1}')))
    assert message == {
        "channel": "shell",
        "header": json.loads(HEADER),
        "parent_header": {},
        "metadata": {},
        "content": {"a": 1},
        "msg_id": "1",
        "msg_type": "comm_msg",
        "buffers": [],
    }


def test_legacy_without_a_channel() -> None:
    """Older clients have one WebSocket for each, and say it nowhere else."""
    assert from_legacy('{"header": {"msg_id": "1"}, "content": null}').channel == "shell"


@pytest.mark.parametrize("count", [0, 5, 6, 7, 1 << 40])
def test_a_frame_that_lies(count: int) -> None:
    with pytest.raises(ValueError):
        from_v1(struct.pack("<Q", count) + b"\xff" * 56)
