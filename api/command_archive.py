"""Local directories as tar streams; what comes out of a sandbox is hostile."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from api.command_connection import say
from interpreter.errors import CellshellError, UnsafeArchive


@asynccontextmanager
async def packing(directory: Path) -> AsyncIterator[BinaryIO]:
    """The directory's content as a tar archive, to be read while the block runs."""
    reader_fd, writer_fd = os.pipe()
    writing = asyncio.create_task(asyncio.to_thread(_write, directory, writer_fd))
    reader = os.fdopen(reader_fd, "rb")
    try:
        yield reader
    finally:
        # A writer that has not come to its end meets a broken pipe, and stops.
        await asyncio.to_thread(reader.close)
        await writing


async def unpack(archive: AsyncIterable[bytes], root: Path) -> None:
    """Extracts below `root`; refuses what would leave it, skips what is not a file."""
    reader_fd, writer_fd = os.pipe()
    reading = asyncio.create_task(asyncio.to_thread(_extract, reader_fd, root))
    try:
        with suppress(BrokenPipeError), os.fdopen(writer_fd, "wb", buffering=0) as writer:
            async for piece in archive:
                await asyncio.to_thread(_write_all, writer, piece)
    except BaseException:
        await asyncio.gather(reading, return_exceptions=True)
        raise
    await reading


def _write(directory: Path, descriptor: int) -> None:
    with (
        suppress(BrokenPipeError),
        os.fdopen(descriptor, "wb") as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.add(directory, arcname=".", filter=_member)


def _member(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
        say(f"left out {info.name}: not a file, directory or link")
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _write_all(writer: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[writer.write(view) :]


def _extract(descriptor: int, root: Path) -> None:
    with os.fdopen(descriptor, "rb") as file:
        root.mkdir(parents=True, exist_ok=True)
        extraction = Extraction(root.resolve())
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    extraction.extract(archive, member)
        except tarfile.TarError as error:
            raise CellshellError(f"expected a tar archive from the service, got {error}") from None


class Extraction:
    """Writes members one by one; each path is resolved against what is there by then."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            self._file(archive, member, path)
        elif member.issym():
            self._symlink(member, path)
        elif member.islnk():
            self._hard_link(member, path)
        else:
            say(f"left out {member.name}: not a file, directory or link")

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        self._clear(path)
        content = archive.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, member.mode & 0o777 | 0o600), "wb") as file:
            if content is not None:
                shutil.copyfileobj(content, file, 1 << 20)

    def _symlink(self, member: tarfile.TarInfo, path: Path) -> None:
        target = Path(os.path.realpath(path.parent / member.linkname))
        if os.path.isabs(member.linkname) or not target.is_relative_to(self._root):
            say(f"left out {member.name}: a link that leads out of the directory")
            return
        self._clear(path)
        path.symlink_to(member.linkname)

    def _hard_link(self, member: tarfile.TarInfo, path: Path) -> None:
        original = self._path(member.linkname)
        if original.is_symlink() or not original.is_file():
            say(f"left out {member.name}: a link to {member.linkname}, which is not a file")
            return
        self._clear(path)
        shutil.copy(original, path)

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        path = self._root.joinpath(*parts)
        parent = Path(os.path.realpath(path.parent))
        if name.startswith("/") or ".." in parts or not path.is_relative_to(self._root):
            raise UnsafeArchive(f"expected names below the directory, got {name!r}")
        if path != self._root and not parent.is_relative_to(self._root):
            raise UnsafeArchive(f"expected names below the directory, but {name!r} goes by a link")
        if path != self._root:
            parent.mkdir(parents=True, exist_ok=True)
        return path

    def _clear(self, path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink()
