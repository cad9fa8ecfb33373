"""Messages as frontends and kernels exchange them: JSON parts that nobody between needs to read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kernels import wire
from kernels.messages import Message
from kernels.report import KEY

CHANNELS = frozenset({"shell", "control", "stdin", "iopub"})
MAX_ID = 256
PROTOCOL = "5.4"


@dataclass(frozen=True, slots=True)
class Packet:
    """One message: its channel, and what is JSON in it as bytes."""

    channel: str
    header: bytes
    parent: bytes = b"{}"
    metadata: bytes = b"{}"
    content: bytes = b"{}"
    buffers: Sequence[bytes] = ()

    @property
    def size(self) -> int:
        parts = (self.header, self.parent, self.metadata, self.content, *self.buffers)
        return sum(map(len, parts))

    def parts(self) -> list[bytes]:
        return [self.header, self.parent, self.metadata, self.content]


def heard(message: Message, parent: bytes | None = None, channel: str | None = None) -> Packet:
    """What a kernel has said; `parent` stands for the header of the request it knows of."""
    header, own_parent, metadata, content = message.parts
    if KEY in message.metadata:  # what is between the service and its kernel
        metadata = wire.pack({name: v for name, v in message.metadata.items() if name != KEY})
    return Packet(
        channel or message.channel, header, parent or own_parent, metadata, content, message.buffers
    )


def made(channel: str, kind: str, content: Mapping[str, Any], parent: bytes = b"{}") -> Packet:
    """What the service says in a kernel's place."""
    own = header(kind, uuid.uuid4().hex)
    return Packet(channel, own, parent, b"{}", wire.pack(dict(content)))


def header(kind: str, id: str) -> bytes:
    """Of a message of the service's own."""
    return wire.pack(
        {
            "msg_id": id,
            "msg_type": kind,
            "username": "cellshell",
            "session": "cellshell",
            "date": _now(),
            "version": PROTOCOL,
        }
    )


def status(state: str, parent: bytes = b"{}") -> Packet:
    return made("iopub", "status", {"execution_state": state}, parent)


def members(part: bytes, what: str) -> dict[str, Any]:
    """The members of a part. Raises ValueError."""
    found = wire.unpack(part)
    if not isinstance(found, dict):
        raise ValueError(f"expected the {what} to be an object")
    return found


def name_of(header: Mapping[str, Any]) -> tuple[str, str]:
    """A message's id and type. Raises ValueError."""
    id, kind = header.get("msg_id"), header.get("msg_type")
    if not isinstance(id, str) or not isinstance(kind, str) or max(len(id), len(kind)) > MAX_ID:
        raise ValueError("expected `msg_id` and `msg_type` in the header")
    return id, kind


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
