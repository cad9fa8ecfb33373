"""The whole output of one execution, in a file of the sandbox."""

from __future__ import annotations

import os
from contextlib import suppress

from interpreter.box import Box
from interpreter.errors import DiskFull

DIRECTORY = ".cellshell/outputs"


class KeptOutput:
    """Both streams in the order they came. A full disk ends the file, not the execution."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    async def open(cls, box: Box, id: str) -> KeptOutput:
        """Raises DiskFull when the file cannot be made."""
        directory = f"{box.paths.home}/{DIRECTORY}"
        try:
            await box.directory(directory, create=True)
            path = f"{directory}/{id}.txt"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            return cls(path, await box.open(path, flags, 0o644))
        except ConnectionError:
            raise
        except OSError as error:
            raise DiskFull(f"the output cannot be kept: {error.strerror}") from error

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
