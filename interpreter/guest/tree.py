"""One operation on a whole tree, inside a box, on the service's word.

    python -I -S -B tree.py REQUEST_JSON

It answers over the socket that `peer.py` describes, `{"beat": true}` every few seconds, and stops
when the service closes its end. What is being built is locked, so that a sweep passes it by.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from functools import partial

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peer import OWN, Gone, Message, Peer, Refused, harden  # type: ignore[import-not-found]

PIECE = 8 << 20
YOUNG = 10.0
DEEP = 256


class Level:
    """One directory of a tree being removed: its files go at once, its directories one by one."""

    def __init__(self, name: str, parent: int | None, peer: Peer) -> None:
        self.name = name
        self.directories: list[str] = []
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(PermissionError):
            os.chmod(name, 0o700, dir_fd=parent)
        self.fd = os.open(name, flags, dir_fd=parent)
        try:
            self._clear(peer)
        except BaseException:
            os.close(self.fd)
            raise

    def _clear(self, peer: Peer) -> None:
        with os.scandir(self.fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            peer.beat()
            if is_directory:
                self.directories.append(name)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self.fd)

    def adopt(self, name: str, parent: int) -> None:
        """Take a directory from far below: neither descriptors nor path lengths run out."""
        here = f".cellshell-{secrets.token_hex(8)}~"
        with suppress(PermissionError):
            os.chmod(name, 0o700, dir_fd=parent)
        os.rename(name, here, src_dir_fd=parent, dst_dir_fd=self.fd)
        self.directories.append(here)


def remove(path: str, peer: Peer) -> None:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    levels = [Level(path, None, peer)]
    try:
        while levels:
            top = levels[-1]
            if top.directories and len(levels) < DEEP:
                levels.append(Level(top.directories.pop(), top.fd, peer))
            elif top.directories:
                levels[0].adopt(top.directories.pop(), top.fd)
            else:
                os.close(levels.pop().fd)
                os.rmdir(top.name, dir_fd=levels[-1].fd if levels else None)
    finally:
        for level in levels:
            os.close(level.fd)


def copy(source: str, destination: str, peer: Peer) -> None:
    """Copies a tree to a name where nothing is yet; symlinks stay symlinks."""
    pending: list[tuple[str, str]] = [(source, destination)]
    finished: list[tuple[str, os.stat_result]] = []
    while pending:
        source, destination = pending.pop()
        peer.beat()
        status = os.lstat(source)
        if not stat.S_ISDIR(status.st_mode):
            copy_one(source, destination, status, peer)
            continue
        os.mkdir(destination, 0o700)
        if not finished:
            lock(os.open(destination, os.O_RDONLY | os.O_CLOEXEC))
        finished.append((destination, status))
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries if not OWN.fullmatch(entry.name)]
        pending += [(f"{source}/{name}", f"{destination}/{name}") for name in names]
    for destination, status in reversed(finished):
        stamp(destination, status)


def copy_one(source: str, destination: str, status: os.stat_result, peer: Peer) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), destination)
        return
    if not stat.S_ISREG(status.st_mode):
        os.mknod(destination, status.st_mode, status.st_rdev)
        return
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    read = os.open(source, os.O_RDONLY | flags)
    try:
        write = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        try:
            lock(write)
            copy_data(read, write, peer)
            stamp(write, status)
        finally:
            os.close(write)
    finally:
        os.close(read)


def copy_data(read: int, write: int, peer: Peer) -> None:
    """Copies what is there and leaves holes as holes."""
    size, position = os.fstat(read).st_size, 0
    while position < size:
        try:
            position = os.lseek(read, position, os.SEEK_DATA)
            end = os.lseek(read, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        while position < end:
            peer.beat()
            count = copy_piece(read, write, min(PIECE, end - position), position)
            if count == 0:
                return
            position += count
    os.ftruncate(write, size)


def copy_piece(read: int, write: int, count: int, position: int) -> int:
    try:
        return os.copy_file_range(read, write, count, position, position)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.pwrite(write, os.pread(read, count, position), position)


def stamp(what: str | int, status: os.stat_result) -> None:
    os.chmod(what, status.st_mode & 0o777)
    os.utime(what, ns=(status.st_atime_ns, status.st_mtime_ns))


def lock(fd: int) -> None:
    """Holds until the descriptor, or this process, is gone."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def merge(source: str, target: str, peer: Peer) -> None:
    """Move what is in `source` into `target`; nothing moves when anything stands in the way."""
    lock(os.open(source, os.O_RDONLY | os.O_CLOEXEC))
    moves = []
    pending = [(source, target)]
    while pending:
        source, target = pending.pop()
        os.chmod(source, os.lstat(source).st_mode | 0o700)
        for name in os.listdir(source):
            peer.beat()
            new, old = f"{source}/{name}", f"{target}/{name}"
            if merges(new, old):
                pending.append((new, old))
            else:
                moves.append((new, old))
    for new, old in moves:
        place(new, old)


def merges(new: str, old: str) -> bool:
    """Whether both are directories; raises when one of them alone is."""
    is_directory = stat.S_ISDIR(os.lstat(new).st_mode)
    try:
        mode = os.lstat(old).st_mode
    except FileNotFoundError:
        return False
    if is_directory and stat.S_ISLNK(mode):
        message = f"a directory of the archive would go through the symbolic link {old!a}"
        raise Refused("unsafe_archive", message)
    if is_directory and not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", old)
    if stat.S_ISDIR(mode) and not is_directory:
        raise IsADirectoryError(errno.EISDIR, "is a directory", old)
    return is_directory


def place(new: str, old: str) -> None:
    mode = os.lstat(new).st_mode
    # A directory changes its `..` when it moves, so it has to be writable.
    closed = stat.S_ISDIR(mode) and mode & 0o700 != 0o700
    if closed:
        os.chmod(new, mode | 0o700)
    os.rename(new, old)
    if closed:
        os.chmod(old, mode & 0o777)


def sweep(journal: str, peer: Peer) -> None:
    """Remove what crashes left behind; what was begun just now may have no lock yet."""
    before = time.time() - YOUNG
    with suppress(FileNotFoundError):
        for name in os.listdir(journal):
            note = os.path.join(journal, name)
            with suppress(OSError):
                path = os.readlink(note)
                known = OWN.fullmatch(name) and os.path.basename(path) == name
                if known and os.lstat(note).st_mtime < before and not in_use(path):
                    with suppress(FileNotFoundError):
                        remove(path, peer)
                    os.unlink(note)


def in_use(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def discard(path: str, journal: str, peer: Peer) -> None:
    with suppress(FileNotFoundError):
        remove(path, peer)
    with suppress(OSError):
        os.unlink(os.path.join(journal, os.path.basename(path)))


def perform(request: Message, peer: Peer) -> Message:
    match request["op"]:
        case "copy":
            copy(request["source"], request["target"], peer)
        case "merge":
            merge(request["source"], request["target"], peer)
        case "discard":
            discard(request["path"], request["journal"], peer)
        case "sweep":
            sweep(request["journal"], peer)
    return {}


def main() -> None:
    harden()
    peer = Peer()
    with suppress(Gone):
        peer.answer(partial(perform, json.loads(sys.argv[1]), peer))


if __name__ == "__main__":
    main()
