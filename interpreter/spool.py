"""Pipe to file without a moment in between: what was read and not yet recorded is not lost.

`splice` moves bytes from a pipe into the file within the kernel. A service that is killed finds
each byte of a command's output either in the pipe or in the file.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

CHUNK = 1 << 16
PUNCH_EVERY = 8 << 20
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
_UNFIT = (errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_libc = ctypes.CDLL(None, use_errno=True)


class Spool:
    """The bytes that came out of one pipe, by their place in the stream."""

    def __init__(self, path: Path) -> None:
        """One that is there already goes on where it ended."""
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.end = os.fstat(self._fd).st_size
        self._kept_from = 0

    def take(self, pipe: int, keep: int = 0) -> bytes:
        """What is in the pipe now; empty at its end. `keep` bytes stay in the file at least.

        Raises BlockingIOError when there is nothing. Where the file takes no more (a full disk),
        the bytes are read all the same: then a service that is killed may lose them.
        """
        try:
            size = os.splice(pipe, self._fd, CHUNK, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in _UNFIT:
                raise
            data = os.read(pipe, CHUNK)
            self.end += len(data)
            return data
        data = os.pread(self._fd, size, self.end)
        self.end += size
        if self.end - keep - self._kept_from > PUNCH_EVERY:
            self._punch(self.end - keep)
        return data

    def rest(self, after: int) -> list[bytes]:
        """What the file still holds beyond so many bytes."""
        with suppress(OSError):
            after = max(after, os.lseek(self._fd, after, os.SEEK_DATA))
        pieces = []
        while after < self.end and (data := os.pread(self._fd, CHUNK, after)):
            pieces.append(data)
            after += len(data)
        return pieces

    def clear(self) -> None:
        if self.end:
            os.ftruncate(self._fd, 0)
            self.end = self._kept_from = 0

    def close(self) -> None:
        os.close(self._fd)

    def remove(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def _punch(self, upto: int) -> None:
        """Give back the room of what has been recorded; offsets stay as they are."""
        size = ctypes.c_int64(upto - self._kept_from)
        flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
        _libc.fallocate(self._fd, flags, ctypes.c_int64(self._kept_from), size)
        self._kept_from = upto
