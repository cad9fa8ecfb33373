"""The whole output of one execution, in a file of the sandbox."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from interpreter.box import Box
from interpreter.file_errors import os_refusal

DIRECTORY = ".cellshell/outputs"


class KeptOutput:
    """Both streams in the order they came. A full disk ends the file, not the execution."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    async def open(cls, box: Box, id: str, *, again: bool = False) -> KeptOutput:
        """A new file, or `again` the one of an earlier service. Raises what is in its way."""
        directory = f"{box.paths.home}/{DIRECTORY}"
        path = f"{directory}/{id}.txt"
        try:
            await box.directory(directory, create=True)
            if not again:
                await _make_way(box, path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            flags |= os.O_APPEND if again else os.O_EXCL
            return cls(path, _regular(await box.open(path, flags, 0o644), path))
        except ConnectionError:
            raise
        except OSError as error:
            raise os_refusal(error, path) from error

    def write(self, stream: str, data: bytes) -> None:
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError:
                self.close()

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1


async def _make_way(box: Box, path: str) -> None:
    with suppress(FileNotFoundError):
        await box.unlink(path)


def _regular(fd: int, path: str) -> int:
    """The box's code may have put something there that would block whoever writes to it."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, "expected a regular file", path)
