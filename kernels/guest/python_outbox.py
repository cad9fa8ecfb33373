"""What a Python kernel has said of late, for a service that was away while it said it.

Every message on iopub gets a number, which travels in a frame of its own in front of the signed
part: other clients take it for one more routing prefix. The last messages and replies are kept,
so that a service which comes back can ask for what it has not recorded. Loaded by path inside the
kernel's process.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

DELIMITER = b"<IDS|MSG>"
SIGNED = 5
"""Signature, header, parent header, metadata, content; what binary buffers follow is not kept."""
MOST_BYTES = 16 * 1024 * 1024
MOST_REPLIES = 16
MOST_REQUESTS = 1000


class Outbox:
    """Not for two threads at once: the publisher's lock guards it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.number = 0
        """Of the last message."""
        self._most_bytes = most_bytes
        self._lost = 0
        """Number of the last message there was no room for; what was seen is not missed."""
        self._size = 0
        self._kept: deque[tuple[int, list[bytes], int]] = deque()
        self._replies: OrderedDict[str, list[bytes]] = OrderedDict()
        self._requests: OrderedDict[str, None] = OrderedDict()

    def stamp(self, frames: Sequence[Any]) -> list[Any]:
        """The message with its number in it; it is kept as it goes out."""
        at = frames.index(DELIMITER)
        self.number += 1
        body = list(frames[at + 1 : at + 1 + SIGNED])
        size = sum(map(len, body))
        self._kept.append((self.number, body, size))
        self._size += size
        while self._size > self._most_bytes:
            self._lost = self._drop()
        return [*frames[:at], b"#%d" % self.number, *frames[at:]]

    def reply(self, request: str, frames: Sequence[Any]) -> None:
        """Keep the reply to a request to run code."""
        at = frames.index(DELIMITER)
        self._replies[request] = list(frames[at + 1 : at + 1 + SIGNED])
        if len(self._replies) > MOST_REPLIES:
            self._replies.popitem(last=False)

    def seen(self, number: object) -> None:
        """All up to this one has been recorded."""
        while self._kept and isinstance(number, int) and self._kept[0][0] <= number:
            self._drop()

    def is_new(self, request: str) -> bool:
        """False for a request that came before: a service that came back sends it again."""
        if request in self._requests:
            return False
        self._requests[request] = None
        if len(self._requests) > MOST_REQUESTS:
            self._requests.popitem(last=False)
        return True

    def after(self, number: int) -> tuple[dict[str, Any], list[Any]]:
        """What is kept beyond `number`, and the replies: what they are, and their frames."""
        messages = [(n, body) for n, body, _ in self._kept if n > number]
        told = {
            "numbers": [n for n, _ in messages],
            "replies": list(self._replies),
            "lost": max(0, self._lost - number),
        }
        frames = [body for _, body in messages] + list(self._replies.values())
        return told, [frame for body in frames for frame in body]

    def _drop(self) -> int:
        number, _, size = self._kept.popleft()
        self._size -= size
        return number
