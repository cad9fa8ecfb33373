"""What a process writes: two bounded files, the order in which they grew, and who follows.

Every byte is in a file before anybody sees it. Followers read from the files at a pace of their
own, so a slow one costs nothing. The order between the streams is kept in a third file: runs
of stdout and stderr alternate, and it holds where each ended, 8 bytes a run. When it is full,
what follows is in order within each stream only.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from interpreter.bounded_file import BoundedFile
from interpreter.descriptors import CHUNK, Bell

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
KEPT_BYTES = 64 * 1024 * 1024
ANSWER_BYTES = 8 * 1024 * 1024
"""Of each stream, in one answer: half from the head and half from the tail."""
_RUN = struct.Struct("<Q")
_ORDER_BYTES = 4 * 1024 * 1024


class Piece(NamedTuple):
    """Consecutive bytes of one stream; `omitted` bytes before them are not kept."""

    stream: Stream
    data: bytes
    omitted: int = 0

    def split(self, count: int) -> tuple[Piece, ...]:
        """In two after `count` bytes, where that lies within what is kept."""
        at = count - self.omitted
        if not 0 < at < len(self.data):
            return (self,)
        return self._replace(data=self.data[:at]), Piece(self.stream, self.data[at:])


class ProcessLog:
    """The output of one process, in `directory`; opening it again goes on where it stopped."""

    def __init__(self, directory: Path, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._files = [BoundedFile(directory, name, kept_bytes // 2) for name in STREAMS]
        self._order = _Order(directory / "order")
        self._bell = Bell()
        self._final: tuple[int, int] | None = None

    def append(self, stream: Stream, data: bytes) -> None:
        index = STREAMS.index(stream)
        self._begin_run(index)
        self._files[index].append(data)
        self._bell.ring()

    def take(self, stream: Stream, pipe: int) -> int:
        """Move what is in a pipe into the log; how many bytes, 0 at its end.

        Raises BlockingIOError.
        """
        index = STREAMS.index(stream)
        moved = self._files[index].take(pipe, CHUNK)
        if moved:
            self._begin_run(index)
            self._bell.ring()
        return moved

    def _begin_run(self, index: int) -> None:
        if index != self._order.count % 2:
            self._order.end_run(self._files[1 - index].end)

    def finish(self) -> None:
        """Followers end after what is there now; more may be appended all the same."""
        self._final = (self._files[0].end, self._files[1].end)
        self._bell.ring()

    def close(self) -> None:
        """Nothing more is appended; followers of what never finished end here too."""
        for file in self._files:
            file.close()
        self._order.close()
        if self._final is None:
            self.finish()

    async def follow(self) -> AsyncGenerator[Piece, None]:
        """Everything that is kept, from the first byte, then what comes, until `finish()`."""
        cursor = _Cursor()
        while True:
            if piece := self._next(cursor):
                yield piece
                await asyncio.sleep(0)  # let others run between two pieces of a long replay
            elif self._final is not None:
                return
            else:
                await self._bell.wait()

    def text(self, stream: Stream, tail: int | None = None) -> str:
        """What is kept of one stream, or its last `tail` lines; bounded, with a line for a gap."""
        file = self._files[STREAMS.index(stream)]
        if tail is not None:
            return _last_lines(file, tail)
        half = ANSWER_BYTES // 2
        return _text(file, (0, min(file.end, half)), (max(half, file.end - half), file.end))

    def _next(self, cursor: _Cursor) -> Piece | None:
        while True:
            index = cursor.run % 2
            end = self._order.end_of(cursor.run)
            limit = self._limit(index) if end is None else min(end, self._limit(index))
            if piece := self._piece(cursor, index, limit):
                return piece
            if end is None:
                # Once the order is no longer recorded, both streams grow in the last run.
                return self._piece(cursor, 1 - index, self._limit(1 - index))
            cursor.run += 1

    def _piece(self, cursor: _Cursor, index: int, limit: int) -> Piece | None:
        offset = cursor.offsets[index]
        if offset >= limit:
            return None
        begin, data = self._files[index].read(offset, min(CHUNK, limit - offset))
        begin = min(begin, limit)
        data = data[: limit - begin]
        cursor.offsets[index] = begin + len(data)
        return Piece(STREAMS[index], data, begin - offset)

    def _limit(self, index: int) -> int:
        return self._files[index].end if self._final is None else self._final[index]


class StreamText:
    """Turns the pieces of one stream into text, whole characters at a time."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_line_start = True

    def feed(self, data: bytes) -> str:
        return self._note(self._decoder.decode(data))

    def gap(self, omitted: int) -> str:
        """A line of its own in place of what is not kept."""
        if not omitted:
            return ""
        before = self._note(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        return self._note(f"{before}{_marker(omitted, self._at_line_start)}")

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)

    def _note(self, text: str) -> str:
        if text:
            self._at_line_start = text.endswith("\n")
        return text


class _Cursor:
    """How far one follower has come."""

    def __init__(self) -> None:
        self.run = 0
        self.offsets = [0, 0]


class _Order:
    """Where each run ended; even runs are stdout's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._full = False
        self.count = path.stat().st_size // _RUN.size if path.exists() else 0

    def end_run(self, end: int) -> None:
        if self._full:
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            written = os.pwrite(self._fd, _RUN.pack(end), self.count * _RUN.size)
        except OSError:
            written = 0
        self.count += written == _RUN.size
        self._full = written != _RUN.size or self.count * _RUN.size >= _ORDER_BYTES

    def end_of(self, run: int) -> int | None:
        """None: that run has not ended."""
        if run >= self.count:
            return None
        with suppress(FileNotFoundError):
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC) if self._fd < 0 else self._fd
            try:
                return int(_RUN.unpack(os.pread(fd, _RUN.size, run * _RUN.size))[0])
            finally:
                if fd != self._fd:
                    os.close(fd)
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._full = True


def _marker(omitted: int, at_line_start: bool) -> str:
    return f"{'' if at_line_start else chr(10)}[... {omitted} bytes omitted ...]\n"


def _text(file: BoundedFile, *ranges: tuple[int, int]) -> str:
    """What is kept in these ranges; between them and in them a line stands for what is not."""
    text = StreamText()
    position = ranges[0][0]
    found = []
    for begin, end in ranges:
        while begin < end:
            begin, data = file.read(begin, end - begin)
            data = data[: max(0, end - begin)]
            found += [text.gap(min(begin, end) - position), text.feed(data)]
            begin += len(data)
            position = min(begin, end)
    return "".join([*found, text.end()])


def _last_lines(file: BoundedFile, count: int) -> str:
    """As far as they lie in what one answer may hold."""
    size = CHUNK
    while True:
        begin = max(0, file.end - size)
        text = _text(file, (begin, file.end))
        if begin == 0 or size >= ANSWER_BYTES or text.count("\n") > count:
            break
        size *= 2
    newline = "\n" if text.endswith("\n") else ""
    lines = text.removesuffix("\n").rsplit("\n", count)
    return "\n".join(lines[-count:]) + newline if count and text else ""
