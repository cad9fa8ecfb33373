"""Messages of a Python kernel: JSON whatever the values, and of a size that the service reads.

Loaded by path inside the kernel's process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

MAX_MESSAGE_BYTES = 100 * 1024 * 1024
CHUNK = 1024 * 1024


class SmallMessages:
    """Replaces what is more than the service reads, which would cost the connection.

    `on_reply` hears of each reply to a request to run code.
    """

    def __init__(self, session: Any, on_reply: Callable[[str, list[bytes]], None]) -> None:
        self._serialize = session.serialize
        self._on_reply = on_reply

    def __call__(self, message: dict[str, Any], ident: Any = None) -> list[bytes]:
        frames = self._serialize_small(message, ident)
        if message["msg_type"] == "execute_reply":
            self._on_reply(message["parent_header"].get("msg_id", ""), frames)
        return frames

    def _serialize_small(self, message: dict[str, Any], ident: Any) -> list[bytes]:
        frames: list[bytes] = self._serialize(message, ident)
        size = sum(map(len, frames))
        if size <= MAX_MESSAGE_BYTES:
            return frames
        smaller = {**message, "content": _shortened(message["content"], size), "metadata": {}}
        frames = self._serialize(smaller, ident)
        return frames


def _shortened(content: Mapping[str, Any], size: int) -> dict[str, Any]:
    note = f"[{size} bytes left out: more than {MAX_MESSAGE_BYTES}]"
    kept = {key: item for key, item in content.items() if len(json.dumps(item)) < CHUNK}
    lost = {key: note for key in content if key not in kept}
    return {**lost, **kept, **({"data": {"text/plain": note}} if "data" in lost else {})}


class Packer:
    """JSON of anything; what all messages of a cell have in common is made once."""

    def __init__(self, pack: Callable[[Any], bytes]) -> None:
        self._pack = pack
        self._common: tuple[Any, bytes] = (None, b"")

    def __call__(self, value: Any) -> bytes:
        if value is self._common[0]:
            return self._common[1]
        try:
            return self._pack(value)
        except (ValueError, TypeError, RecursionError):  # lone surrogates, mostly
            return json.dumps(value, default=str).encode()

    def begin(self, header: dict[str, Any]) -> None:
        """This is the parent of the messages to come."""
        self._common = (header, self(header))
