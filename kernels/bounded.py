"""Text that keeps its head and its tail, however long it grows."""

from __future__ import annotations

_MARK = "[... {} bytes omitted ...]\n"


class BoundedText:
    """Bytes of a stream: at most `max_bytes` of them are kept, half in front and half at the end.

    Nothing is cut inside of a UTF-8 character.
    """

    def __init__(self, max_bytes: int) -> None:
        self._head_limit = (max_bytes + 1) // 2
        self._tail_limit = max_bytes - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def append(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._append_tail(data)

    @property
    def omitted(self) -> int:
        head, tail = self.parts()
        return self.total - len(head) - len(tail)

    def getvalue(self) -> bytes:
        """The whole, or head and tail around a line that says how much is left out."""
        head, tail = self.parts()
        omitted = self.total - len(head) - len(tail)
        return head + tail if not omitted else head + mark(omitted, after=head) + tail

    def parts(self) -> tuple[bytes, bytes]:
        """Head and tail; with nothing omitted, the tail follows the head."""
        kept = len(self._head) + min(len(self._tail), self._tail_limit)
        if self.total == len(self._head) + len(self._tail) and self.total <= kept:
            return bytes(self._head), bytes(self._tail)
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        return _without_torn_end(bytes(self._head)), _without_torn_start(tail)

    def _append_tail(self, data: bytes) -> None:
        limit = self._tail_limit
        self._tail += data[-limit:] if limit else b""
        if len(self._tail) > 2 * limit:  # cut seldom, so that small appends stay cheap
            del self._tail[:-limit]


def mark(omitted: int, *, after: bytes) -> bytes:
    """The line that stands for what is left out."""
    line = _MARK.format(omitted).encode()
    return line if not after or after.endswith(b"\n") else b"\n" + line


def _without_torn_end(data: bytes) -> bytes:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if length > back else data
    return data


def _without_torn_start(data: bytes) -> bytes:
    skip = 0
    while skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    return data[skip:]
