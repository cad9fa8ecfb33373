"""A stream of bytes on disk of which the head and the tail are kept.

The stream is cut into segments, each a file named by where it begins. The first keeps the head;
of the others only the newest two are kept, so that the whole never exceeds the limit. What is in
no segment was left out, or could not be written because the disk was full.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class _Segment(NamedTuple):
    path: Path
    begin: int
    end: int


class BoundedFile:
    """Append-only. `end` counts every byte ever appended, kept or not."""

    def __init__(self, directory: Path, name: str, limit: int) -> None:
        self._directory = directory
        self._name = name
        self._limit = limit
        self._segments = self._recover()
        self._fd = -1
        self.end = self._segments[-1].end if self._segments else 0

    def append(self, data: bytes) -> None:
        """Never raises: what the disk does not take is left out."""
        rest = memoryview(data)
        while rest:
            piece = rest[: self._room()]
            try:
                self._write(piece)
            except OSError:
                self._seal()
                self.end += len(rest)
                return
            rest = rest[len(piece) :]

    def take(self, pipe: int, size: int) -> int:
        """Move up to `size` bytes out of a pipe, without a moment in which they are in neither.

        How many; 0 at the end of the pipe. Raises BlockingIOError when there is nothing in it.
        """
        room = min(size, self._room())
        try:
            if self._fd < 0:
                self._begin()
            begin, end = self._segments[-1].begin, self._segments[-1].end
            flags = os.SPLICE_F_NONBLOCK
            moved = os.splice(pipe, self._fd, room, offset_dst=end - begin, flags=flags)
        except BlockingIOError:
            raise
        except OSError:  # a full disk; or what is no pipe
            data = os.read(pipe, room)
            self.append(data)
            return len(data)
        self.end += moved
        self._segments[-1] = self._segments[-1]._replace(end=self.end)
        self._evict()
        return moved

    def read(self, offset: int, size: int) -> tuple[int, bytes]:
        """Up to `size` bytes at `offset`, or at the next that is kept: where they begin, and they.

        Without bytes: there are none from where it says on.
        """
        for segment in self._segments:
            if segment.end > offset:
                begin = max(offset, segment.begin)
                data = _read(segment.path, begin - segment.begin, min(size, segment.end - begin))
                if data:
                    return begin, data
        return self.end, b""

    def kept(self) -> int:
        return sum(segment.end - segment.begin for segment in self._segments)

    def close(self) -> None:
        """Nothing is appended any more; reading goes on."""
        self._seal()

    def _recover(self) -> list[_Segment]:
        found = []
        for path in self._directory.glob(f"{self._name}.*"):
            begin = int(path.suffix[1:])
            found.append(_Segment(path, begin, begin + path.stat().st_size))
        return sorted(found, key=lambda segment: segment.begin)

    def _room(self) -> int:
        """How much the segment being written still takes, or else a fresh one."""
        if room := self._room_in_last():
            return room
        self._seal()
        return self._capacity(self.end)

    def _room_in_last(self) -> int:
        """None once bytes were lost after it: a segment has no holes."""
        if not self._segments or self._segments[-1].end != self.end:
            return 0
        last = self._segments[-1]
        return self._capacity(last.begin) - (last.end - last.begin)

    def _capacity(self, begin: int) -> int:
        return max(1, self._limit // (2 if begin == 0 else 4))

    def _write(self, piece: memoryview) -> None:
        if self._fd < 0:
            self._begin()
        segment = self._segments[-1]
        written, size = 0, segment.end - segment.begin
        try:
            while written < len(piece):
                written += os.pwrite(self._fd, piece[written:], size + written)
        except OSError:
            self._take_back(segment)
            raise
        self.end += written
        self._segments[-1] = segment._replace(end=self.end)
        self._evict()

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        if self._room_in_last():
            self._fd = os.open(self._segments[-1].path, flags, 0o600)
            return
        path = self._directory / f"{self._name}.{self.end}"
        self._fd = os.open(path, flags | os.O_TRUNC, 0o600)
        self._segments.append(_Segment(path, self.end, self.end))

    def _take_back(self, segment: _Segment) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, segment.end - segment.begin)
        if segment.begin == segment.end:
            self._segments.pop()
            segment.path.unlink(missing_ok=True)

    def _evict(self) -> None:
        first_of_tail = 1 if self._segments[0].begin == 0 else 0
        while len(self._segments) > first_of_tail + 2:
            self._segments.pop(first_of_tail).path.unlink(missing_ok=True)

    def _seal(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # the whole directory was removed while somebody read
        return b""
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
