"""Reports what changes in a directory or file, inside a box.

    python -I -S -B watch.py REQUEST_JSON

`{"event", "path", ...}` go out over the socket that `peer.py` describes, the first of them
`started`. It ends when what is watched is gone, and when the service hangs up.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import stat
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peer import OWN, Gone, Message, Peer, Refused, harden  # type: ignore[import-not-found]

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_ISDIR = 0x1000000, 0x2000000, 0x40000000
CHANGES = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
SELF = IN_DELETE_SELF | IN_MOVE_SELF
PAIR_MILLISECONDS = 20
"""Both halves of a rename are queued together, but one read may end between them."""

libc = ctypes.CDLL(None, use_errno=True)


class Ended(Exception):
    """What is watched is gone."""


class Change(NamedTuple):
    watch: int
    mask: int
    cookie: int
    name: str


class Moved(NamedTuple):
    """The first half of a rename; `kind` is None for a name that is ours."""

    cookie: int
    path: str
    kind: str | None


class Inotify:
    def __init__(self) -> None:
        self.fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise Refused("at_capacity", "too many watches are open: end one of them")

    def add(self, path: str, mask: int) -> int:
        watch = libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch >= 0:
            return int(watch)
        number = ctypes.get_errno()
        if number == errno.ENOSPC:
            raise Refused("at_capacity", "more directories than can be watched: watch a part")
        raise OSError(number, os.strerror(number), path)

    def remove(self, watch: int) -> None:
        libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Change]:
        changes, position = [], 0
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        while position < len(data):
            watch, mask, cookie, size = struct.unpack_from("iIII", data, position)
            position += 16
            name = data[position : position + size].rstrip(b"\0")
            position += size
            changes.append(Change(watch, mask, cookie, os.fsdecode(name)))
        return changes


class Watcher:
    """What is known of the tree, and what the changes make of it.

    `known` holds the names and kinds in each watched directory: so a directory that fills while
    its watch is being added is reported once and whole, whichever comes first, event or scan.
    """

    def __init__(self, peer: Peer, path: str, recursive: bool) -> None:
        self.peer = peer
        self.path = path
        self.recursive = recursive
        self.only = None if os.path.isdir(path) else os.path.basename(path)
        self.root = path if self.only is None else os.path.dirname(path)
        self.out: list[dict[str, Any]] = []
        self.modified: set[str] = set()
        self.moved: Moved | None = None
        self.start()

    def start(self) -> None:
        self.inotify = Inotify()
        self.paths: dict[int, str] = {}
        self.known: dict[str, dict[str, str]] = {}
        if self.only is not None:
            os.lstat(self.path)
        self.top = self.enter(self.root, IN_ONLYDIR | SELF)
        self.out.clear()

    def run(self) -> None:
        self.report("started", self.path)
        self.flush()
        poll = select.poll()
        poll.register(self.inotify.fd, select.POLLIN)
        poll.register(self.peer.connection, select.POLLRDHUP)
        while True:
            ready = dict(poll.poll(PAIR_MILLISECONDS if self.moved else None))
            if self.peer.connection.fileno() in ready:
                return
            if not ready:
                self.gone_elsewhere()
            for change in self.inotify.read():
                if change.mask & IN_Q_OVERFLOW:
                    poll.unregister(self.inotify.fd)
                    self.start_over()
                    poll.register(self.inotify.fd, select.POLLIN)
                    break
                self.handle(change)
            self.flush()

    def finish(self) -> None:
        self.gone_elsewhere()
        self.flush()

    def start_over(self) -> None:
        """Changes were lost: say so, and know the tree anew."""
        os.close(self.inotify.fd)
        self.moved = None
        self.flush()
        self.start()
        self.report("overflow", self.path)

    def enter(self, directory: str, mask: int = IN_ONLYDIR | IN_DONT_FOLLOW) -> int:
        """Watch a directory, and below it; reports what is in it and was not known."""
        first, pending = -1, [directory]
        while pending:
            path = pending.pop()
            try:
                watch = self.inotify.add(
                    path, CHANGES | (mask if first < 0 else IN_ONLYDIR | IN_DONT_FOLLOW)
                )
            except OSError:
                if first < 0 and mask & SELF:
                    raise
                continue
            first = watch if first < 0 else first
            self.paths[watch] = path
            pending += self.scan(path)
        return first

    def scan(self, directory: str) -> list[str]:
        """Names in a directory, reported when new; returns the directories to enter."""
        names = self.known.setdefault(directory, {})
        found = []
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if OWN.fullmatch(entry.name) or (self.only or entry.name) != entry.name:
                    continue
                if entry.name not in names:
                    names[entry.name] = kind(entry.path, False)
                    self.report("created", entry.path, type=names[entry.name])
                if self.recursive and names[entry.name] == "directory":
                    found.append(entry.path)
        return found

    def handle(self, change: Change) -> None:
        if change.mask & IN_IGNORED:
            self.paths.pop(change.watch, None)
            return
        directory = self.paths.get(change.watch)
        if directory is None:
            return
        if self.moved and not (change.mask & IN_MOVED_TO and change.cookie == self.moved.cookie):
            self.gone_elsewhere()
        if change.mask & (SELF | IN_UNMOUNT):
            self.root_gone(change)
        elif self.only is None or change.name == self.only or change.mask & IN_MOVED_TO:
            self.handle_name(change, directory, os.path.join(directory, change.name))

    def root_gone(self, change: Change) -> None:
        if change.watch == self.top:
            if self.only is None:
                self.report("deleted", self.path, type="directory")
            raise Ended

    def handle_name(self, change: Change, directory: str, path: str) -> None:
        own = OWN.fullmatch(change.name) is not None
        if change.mask & IN_MOVED_FROM:
            names = self.known.get(directory, {})
            self.moved = Moved(change.cookie, path, None if own else names.pop(change.name, None))
        elif change.mask & IN_MOVED_TO:
            self.arrived(change, directory, path, own)
        elif own:
            return
        elif change.mask & IN_CREATE:
            self.appeared(change, directory, path)
        elif change.mask & IN_DELETE:
            self.vanished(directory, change.name)
        elif path not in self.modified and change.name in self.known.get(directory, {}):
            self.report("modified", path, type=self.known[directory][change.name])
            self.modified.add(path)

    def appeared(self, change: Change, directory: str, path: str) -> None:
        names = self.known.setdefault(directory, {})
        if change.name not in names:
            names[change.name] = kind(path, bool(change.mask & IN_ISDIR))
            self.report("created", path, type=names[change.name])
        if self.recursive and change.mask & IN_ISDIR:
            self.enter(path)

    def vanished(self, directory: str, name: str) -> None:
        known = self.known.get(directory, {}).pop(name, None)
        if known is not None:
            path = os.path.join(directory, name)
            self.known.pop(path, None)
            self.report("deleted", path, type=known)

    def arrived(self, change: Change, directory: str, path: str, own: bool) -> None:
        moved, self.moved = self.moved, None
        if own or (self.only is not None and change.name != self.only):
            self.moved = moved
            self.gone_elsewhere()
            return
        names = self.known.setdefault(directory, {})
        if moved is None or moved.kind is None:
            if change.name in names and not change.mask & IN_ISDIR:
                names[change.name] = kind(path, False)
                self.report("modified", path, type=names[change.name])
            else:
                self.appeared(change, directory, path)
            return
        names[change.name] = moved.kind
        self.report("moved", moved.path, destination=path, type=moved.kind)
        if moved.kind == "directory":
            self.follow(moved.path, path)

    def gone_elsewhere(self) -> None:
        """The second half of a rename did not come: it left what is watched."""
        moved, self.moved = self.moved, None
        if moved and moved.kind is not None:
            self.report("deleted", moved.path, type=moved.kind)
            self.leave(moved.path)

    def below(self, directory: str) -> list[tuple[int, str]]:
        inside = directory + "/"
        return [
            (watch, path)
            for watch, path in self.paths.items()
            if path == directory or path.startswith(inside)
        ]

    def follow(self, source: str, destination: str) -> None:
        for watch, path in self.below(source):
            self.paths[watch] = destination + path[len(source) :]
            self.known[self.paths[watch]] = self.known.pop(path, {})

    def leave(self, directory: str) -> None:
        for watch, path in self.below(directory):
            self.inotify.remove(watch)
            del self.paths[watch]
            self.known.pop(path, None)

    def report(self, event: str, path: str, **more: str) -> None:
        self.modified.discard(path)
        self.out.append({"event": event, "path": path, **more})

    def flush(self) -> None:
        self.modified.clear()
        self.peer.send(*self.out)
        self.out.clear()


def kind(path: str, directory: bool) -> str:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "directory" if directory else "file"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def watch(request: Message, peer: Peer) -> Message:
    watcher = Watcher(peer, request["path"], request["recursive"])
    with suppress(Ended):
        watcher.run()
    watcher.finish()
    return {}


def main() -> None:
    harden()
    peer = Peer()
    with suppress(Gone):
        peer.answer(partial(watch, json.loads(sys.argv[1]), peer))


if __name__ == "__main__":
    main()
