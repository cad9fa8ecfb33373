"""A directory to a tar stream, or a tar stream to an empty directory, inside a box.

    python -I -S -B archive.py REQUEST_JSON

Descriptor 1 is the tar, out or in. Over the socket that `peer.py` describes goes
`{"started": true}` once the directory is open, and the answer at last. A tar that comes in is
unpacked into a directory nobody sees yet, so that one bad member can refuse the whole.
"""

from __future__ import annotations

import fcntl
import json
import lzma
import os
import resource
import stat
import sys
import tarfile
import zlib
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peer import OWN, Gone, Message, Peer, Refused, harden  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 1 << 20
HOLE = bytes(PIECE)
MEMORY = 1 << 31
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError)


def unsafe(message: str) -> Refused:
    """The archive is refused as a whole."""
    return Refused("unsafe_archive", message)


class Member(tarfile.TarInfo):
    """Remembers how reading ended: `tarfile` takes a damaged header for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise
            raise tarfile.ReadError(str(error)) from None


# Out


def pack(directory: str, out: IO[bytes]) -> None:
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in walk(directory):
            with suppress(FileNotFoundError):
                add(archive, path, os.path.relpath(path, directory))


def walk(directory: str) -> Iterator[str]:
    pending = [directory]
    while pending:
        path = pending.pop()
        if path != directory:
            yield path
        if path == directory or (os.path.isdir(path) and not os.path.islink(path)):
            names = sorted(os.listdir(path), reverse=True)
            pending += [os.path.join(path, name) for name in names if not OWN.fullmatch(name)]


def add(archive: tarfile.TarFile, path: str, name: str) -> None:
    """FIFOs, sockets and devices are left out, as an archive with them would be refused."""
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        return
    if not stat.S_ISREG(mode):
        archive.addfile(plain(archive.gettarinfo(path, name)))
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        member = plain(archive.gettarinfo(arcname=name, fileobj=file))
        archive.addfile(member, Exactly(file, member.size) if member.isreg() else None)  # type: ignore[arg-type]


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = int(member.mtime)
    member.uname = member.gname = ""
    return member


class Exactly:
    """As many bytes as the header promised, whatever becomes of the file meanwhile."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.left = size

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left)) or b""
        data += bytes(min(size, self.left) - len(data))
        self.left -= len(data)
        return data


# In


class Unpacking:
    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.directories: dict[str, tarfile.TarInfo] = {}

    def run(self, source: IO[bytes]) -> None:
        with tarfile.open(fileobj=source, mode="r|*", tarinfo=Member, bufsize=PIECE) as archive:
            while member := archive.next():
                self.add(archive, member)
                # A stream is never read twice; the list would only grow.
                archive.members = []  # type: ignore[attr-defined]
        for path, member in sorted(self.directories.items(), reverse=True):
            finish(path, member)

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = checked(member.name, "member")
        if not parts and member.isdir():
            return
        path = self.place(parts, member.name)
        if member.isdir():
            self.make_directory(path, member)
        elif member.issym():
            clear(path)
            os.symlink(member.linkname, path)
        elif member.islnk():
            self.link(path, member)
        elif member.isreg():
            self.make_file(path, member, archive)
        else:
            raise unsafe(f"{member.name!a} is a device, a FIFO or of an unknown type")

    def place(self, parts: list[str], name: str) -> str:
        """The path of a member; its parents are made, and are real directories."""
        if not parts:
            raise unsafe(f"{name!a} is a name for the directory itself")
        path = self.directory
        for part in parts[:-1]:
            path = f"{path}/{part}"
            self.make_directory(path, None)
        return f"{path}/{parts[-1]}"

    def make_directory(self, path: str, member: tarfile.TarInfo | None) -> None:
        if path not in self.directories:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    shown = os.path.relpath(path, self.directory)
                    message = f"a member goes through {shown!a}, which is no directory"
                    raise unsafe(message) from None
        if member or path not in self.directories:
            self.directories[path] = member or implied()

    def link(self, path: str, member: tarfile.TarInfo) -> None:
        parts = checked(member.linkname, "hard link to")
        target = self.directory
        for part in parts:
            if not stat.S_ISDIR(os.lstat(target).st_mode):
                raise unsafe(f"the hard link {member.name!a} goes through {member.linkname!a}")
            target = f"{target}/{part}"
            if not os.path.lexists(target):
                break
        if not os.path.lexists(target) or not stat.S_ISREG(os.lstat(target).st_mode):
            raise unsafe(f"the hard link {member.name!a} is to no file of the archive before it")
        if target != path:
            clear(path)
            os.link(target, path, follow_symlinks=False)

    def make_file(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        clear(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = archive.extractfile(member)
        assert source is not None
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            while data := source.read(PIECE):
                if len(data) == PIECE and data == HOLE:
                    file.seek(PIECE, os.SEEK_CUR)
                else:
                    write_all(file.fileno(), data)
            file.truncate(member.size)
        finish(path, member)


def checked(name: str, what: str) -> list[str]:
    if name.startswith("/"):
        raise unsafe(f"{what} {name!a}: expected a relative path, got an absolute one")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise unsafe(f"{what} {name!a} leads out of the directory")
    return parts


def implied() -> tarfile.TarInfo:
    """A directory that only its members' names speak of."""
    member = tarfile.TarInfo()
    member.mode, member.mtime = 0o755, -1
    return member


def clear(path: str) -> None:
    """A later member of the same name wins, unless one of the two is a directory."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise unsafe(f"{os.path.basename(path)!a} is a directory, and then something else")
        os.unlink(path)


def finish(path: str, member: tarfile.TarInfo) -> None:
    os.chmod(path, member.mode & 0o777)
    if member.mtime >= 0:
        with suppress(OverflowError, ValueError, OSError):
            os.utime(path, (member.mtime, member.mtime))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def perform(request: Message, peer: Peer) -> Message:
    directory = os.open(request["path"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.listdir(directory)
    with suppress(OSError):
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    peer.send({"started": True})
    if request["op"] == "pack":
        with open(1, "wb", buffering=PIECE) as out:
            pack(request["path"], out)
        return {}
    with open(1, "rb", buffering=PIECE) as source:
        try:
            Unpacking(request["path"]).run(source)
        except MemoryError:
            raise unsafe("its headers or its compression ask for too much memory") from None
        except DAMAGED as error:
            raise unsafe(f"it is damaged, cut short or no tar archive: {error}") from None
        while source.read(PIECE):
            continue
    return {}


def main() -> None:
    harden()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    peer = Peer()
    with suppress(Gone):
        peer.answer(partial(perform, json.loads(sys.argv[1]), peer))


if __name__ == "__main__":
    main()
