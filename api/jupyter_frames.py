"""Messages in WebSocket frames: Jupyter's binary frames, and the JSON ones of before.

Source: `jupyter_server`'s documentation of its kernel WebSocket protocols; the first is named
`v1.kernel.websocket.jupyter.org`, the other has no name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kernels import wire
from kernels.packets import Packet, members

V1 = "v1.kernel.websocket.jupyter.org"
SIGNED = 4
"""Header, parent header, metadata, content."""
MOST_PARTS = 10_000
JSON_PARTS = ("header", "parent_header", "metadata", "content")


def to_v1(packet: Packet) -> bytes:
    """Little-endian: how many offsets, the offsets, then channel, JSON parts and buffers."""
    parts = [packet.channel.encode(), *packet.parts(), *packet.buffers]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *parts])


def from_v1(frame: bytes) -> Packet:
    """Raises ValueError."""
    if len(frame) < 8:
        raise ValueError("a frame of fewer than 8 bytes")
    (count,) = struct.unpack_from("<Q", frame)
    if not SIGNED + 2 <= count <= MOST_PARTS or len(frame) < 8 * (count + 1):
        raise ValueError(f"a frame that announces {count} offsets")
    channel, *parts = _cut(frame, struct.unpack_from(f"<{count}Q", frame, 8))
    return _packet(channel.decode("utf-8", "replace"), parts[:SIGNED], parts[SIGNED:])


def to_legacy(packet: Packet) -> str | bytes:
    """JSON; where there are buffers, big-endian offsets, that JSON and the buffers."""
    text = _legacy_json(packet)
    if not packet.buffers:
        return text.decode("utf-8", "replace")
    parts = [text, *packet.buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts])


def from_legacy(frame: str | bytes) -> Packet:
    """Raises ValueError."""
    if isinstance(frame, str):
        text, buffers = frame.encode("utf-8", "replace"), []
    else:
        text, *buffers = _legacy_parts(frame)
    message = members(text, "message")
    parts = [wire.pack(_part(message, name)) for name in JSON_PARTS]
    return _packet(str(message.get("channel", "shell")), parts, buffers)


def _packet(channel: str, parts: Sequence[bytes], buffers: Sequence[bytes]) -> Packet:
    header, parent, metadata, content = parts
    return Packet(channel, header, parent, metadata, content, buffers)


def _part(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"expected `{name}` to be an object")
    return value


def _legacy_json(packet: Packet) -> bytes:
    header = members(packet.header, "header")
    named = {name: header.get(name) for name in ("msg_id", "msg_type")}
    pairs = dict(zip(JSON_PARTS, packet.parts(), strict=True))
    pairs |= {name: wire.pack(value) for name, value in named.items()}
    pairs |= {"channel": wire.pack(packet.channel), "buffers": b"[]"}
    return b"{" + b",".join(b'"%b":%b' % (n.encode(), v) for n, v in pairs.items()) + b"}"


def _legacy_parts(frame: bytes) -> list[bytes]:
    if len(frame) < 4:
        raise ValueError("a frame of fewer than 4 bytes")
    (count,) = struct.unpack_from(">I", frame)
    if not 1 <= count <= MOST_PARTS or len(frame) < 4 * (count + 1):
        raise ValueError(f"a frame that announces {count} parts")
    return _cut(frame, [*struct.unpack_from(f">{count}I", frame, 4), len(frame)])


def _cut(frame: bytes, offsets: Sequence[int]) -> list[bytes]:
    if list(offsets) != sorted(offsets) or offsets[-1] > len(frame):
        raise ValueError("a frame whose offsets lead out of it")
    return [frame[start:end] for start, end in pairwise(offsets)]
