"""Small file operations inside a box, on the service's word.

    python -I -S -B worker.py JOURNAL_DIRECTORY PROTECTED_PATH...

Requests `{"op", ...}` come in over the socket that `peer.py` describes and are answered in their
turn; a listing has `{"entries": [...]}` before that. Each request is short; what may take long is
prepared here, done by `tree.py` or `archive.py`, and put in place here.

Whatever is being built lies under a hidden name beside its place. The journal, a directory of
symlinks to those names, is how a later service finds what a crash left behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peer import OWN, Gone, Message, Peer, Refused, harden  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_FDCWD, RENAME_NOREPLACE = -100, 1
MAX_ENTRIES = 100_000
BATCH = 500
QUICK = 0.05

libc = ctypes.CDLL(None, use_errno=True)


class Journal:
    """The temporaries in existence: one symlink each, named as the temporary is."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def temporary(self, directory: str) -> str:
        name = f".cellshell-{secrets.token_hex(8)}~"
        path = os.path.join(directory, name)
        # Without its note a temporary works as well; only a crash would leave it lying.
        with suppress(OSError):
            os.makedirs(self.directory, 0o700, exist_ok=True)
            os.symlink(path, os.path.join(self.directory, name))
        return path

    def forget(self, path: str) -> None:
        with suppress(OSError):
            os.unlink(os.path.join(self.directory, os.path.basename(path)))


class Operations:
    """What can be asked for: `do_<op>(request) -> result`."""

    def __init__(self, peer: Peer, journal: Journal, protected: list[str]) -> None:
        self.peer = peer
        self.journal = journal
        self.protected = [os.path.realpath(path) for path in protected]

    def do_info(self, request: Message) -> Message:
        return describe(request["path"])

    def do_list(self, request: Message) -> Message:
        started, batch = time.monotonic(), []
        paths = walk(request["path"], request["recursive"], request["hidden"])
        for count, path in enumerate(paths):
            with suppress(FileNotFoundError):
                batch.append(describe(path))
            if count >= MAX_ENTRIES:
                raise Refused("too_large", f"more than {MAX_ENTRIES} entries: list a part of it")
            if len(batch) == BATCH:
                self.peer.send({"entries": batch})
                batch = []
            if not request["long"] and time.monotonic() - started > QUICK:
                return {"long": True}
        self.peer.send({"entries": batch})
        return {}

    def do_mkdir(self, request: Message) -> Message:
        path = request["path"]
        if not request["recursive"]:
            os.mkdir(path)
        elif not os.path.isdir(path):
            make_directories(path)
            if not os.path.isdir(path):
                raise FileExistsError(errno.EEXIST, "exists", path)
        return describe(path)

    def do_delete(self, request: Message) -> Message:
        """A full directory vanishes under a temporary name; emptying it is for `tree.py`."""
        path = self.movable(request["path"])
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return {}
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not request["recursive"]:
                raise OSError(errno.ENOTEMPTY, "not empty", path) from None
            temporary = self.journal.temporary(os.path.dirname(path))
            os.rename(path, temporary)
            return {"temporary": temporary, "target": path}
        return {}

    def do_move(self, request: Message) -> Message:
        source, destination = self.movable(request["source"]), self.movable(request["destination"])
        try:
            if request["overwrite"] and same(source, destination):
                # rename(2) does nothing when both are names of one file.
                if source != destination:
                    os.unlink(source)
            else:
                rename(source, destination, request["overwrite"])
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return {"elsewhere": True}
        return describe(destination, request["destination"])

    def do_beside(self, request: Message) -> Message:
        """A temporary to build a copy of `source` under; `same`: nothing is to be done."""
        source, destination = os.path.realpath(request["source"]), real(request["destination"])
        if real(request["source"]) == destination and request["overwrite"]:
            return {"same": True, **describe(destination, request["destination"])}
        status = os.lstat(request["source"])
        if os.path.lexists(destination):
            check_replaceable(status, destination, request["overwrite"])
        if stat.S_ISDIR(status.st_mode) and (destination + "/").startswith(
            source.rstrip("/") + "/"
        ):
            raise Refused("invalid_request", "a directory cannot be copied into itself")
        temporary = self.journal.temporary(os.path.dirname(destination))
        return {"temporary": temporary, "target": destination}

    def do_inside(self, request: Message) -> Message:
        """A directory for an archive's members, inside the one they are for."""
        path = request["path"]
        with making() as made:
            made += make_directories(path)
            os.listdir(path)
            temporary = self.journal.temporary(path)
            os.mkdir(temporary, 0o700)
        return {"temporary": temporary, "target": path, "made": made}

    def do_write(self, request: Message) -> Message:
        """Where the content of `path` really goes, and a temporary beside it."""
        path = request["path"]
        with making() as made:
            made += make_directories(os.path.dirname(path))
            target = os.path.realpath(path) if follow(path) else path
            made += make_directories(os.path.dirname(target))
            mode = writable(target)
            temporary = None
            if not request["append"]:
                temporary = self.journal.temporary(os.path.dirname(target))
        return {"temporary": temporary, "target": target, "mode": mode, "made": made}

    def do_commit(self, request: Message) -> Message:
        """Put what was built in its place."""
        temporary, target = request["temporary"], request["target"]
        if request.get("mode") is not None:
            os.chmod(temporary or target, request["mode"])
        if temporary:
            rename(temporary, target, request["overwrite"])
            self.journal.forget(temporary)
        return describe(target, request["path"])

    def do_discard(self, request: Message) -> Message:
        """Remove what a write had built, and the directories made for it."""
        if request.get("temporary"):
            with suppress(FileNotFoundError):
                os.unlink(request["temporary"])
            self.journal.forget(request["temporary"])
        unmake(request["made"])
        return {}

    def movable(self, path: str) -> str:
        path = real(path)
        for kept in self.protected:
            if kept == path or kept.startswith(path.rstrip("/") + "/"):
                raise Refused("permission_denied", f"{kept} itself stays: name something in it")
        return path


def describe(path: str, shown: str | None = None) -> Message:
    status = os.lstat(path)
    target: str | None = None
    if stat.S_ISLNK(status.st_mode):
        with suppress(OSError):
            target = os.readlink(path)
    return {
        "path": shown or path,
        "mode": status.st_mode,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "target": target,
    }


def walk(directory: str, recursive: bool, hidden: bool) -> Iterator[str]:
    """Entries by name, each directory followed by what is in it."""
    pending = sorted_entries(directory, hidden)
    while pending:
        path, is_directory = pending.pop()
        yield path
        if recursive and is_directory:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                pending += sorted_entries(path, hidden)


def sorted_entries(directory: str, hidden: bool) -> list[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        found = [
            (entry.path, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if not OWN.fullmatch(entry.name) and (hidden or not entry.name.startswith("."))
        ]
    return sorted(found, reverse=True)


def make_directories(path: str) -> list[str]:
    """Like `mkdir -p`; returns those that were not there, outermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    with making() as made:
        for directory in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(directory)
                made.append(directory)
    return made


@contextmanager
def making() -> Iterator[list[str]]:
    """A list of directories made on the way, removed again when something fails."""
    made: list[str] = []
    try:
        yield made
    except BaseException:
        unmake(made)
        raise


def unmake(made: list[str]) -> None:
    for directory in reversed(made):
        with suppress(OSError):
            os.rmdir(directory)


def check_replaceable(source: os.stat_result, destination: str, overwrite: bool) -> None:
    """Says before the work what rename(2) would say after it."""
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "exists", destination)
    into = stat.S_ISDIR(os.lstat(destination).st_mode)
    if into and not stat.S_ISDIR(source.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", destination)
    if stat.S_ISDIR(source.st_mode):
        if not into:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", destination)
        if os.listdir(destination):
            raise OSError(errno.ENOTEMPTY, "not empty", destination)


def follow(path: str) -> bool:
    """Whether `path` is a symlink; one that leads to itself raises."""
    with suppress(FileNotFoundError):
        os.stat(path)
    return os.path.islink(path)


def writable(target: str) -> int | None:
    """The mode of the file at `target`, None when there is none; anything else raises."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", target)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not_a_file", "a FIFO, socket or device is there: expected a regular file")
    in_proc = status.st_dev == os.stat("/proc").st_dev
    if in_proc or not os.access(target, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, "not writable", target)
    return status.st_mode & 0o777


def same(source: str, destination: str) -> bool:
    try:
        return os.path.samestat(os.lstat(source), os.lstat(destination))
    except FileNotFoundError:
        return False


def real(path: str) -> str:
    """Symlinks resolved everywhere but at the last name: the name that a rename acts on."""
    directory, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(directory), name)


def rename(source: str, destination: str, overwrite: bool) -> None:
    if overwrite:
        try:
            os.rename(source, destination)
        except FileExistsError:
            raise OSError(errno.ENOTEMPTY, "not empty", destination) from None
        return
    names = os.fsencode(source), os.fsencode(destination)
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), source, None, destination)
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, "exists", destination)
    os.rename(source, destination)


def main() -> None:
    harden()
    peer = Peer()
    operations = Operations(peer, Journal(sys.argv[1]), sys.argv[2:])
    with suppress(Gone):
        while True:
            request = peer.receive()
            peer.answer(partial(getattr(operations, "do_" + request["op"]), request))


if __name__ == "__main__":
    main()
