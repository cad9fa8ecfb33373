"""Facts about files, checked: they come from inside a box."""

from __future__ import annotations

import posixpath
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from interpreter.errors import NotReady
from interpreter.file_errors import show
from interpreter.models import FileInfo

if TYPE_CHECKING:
    import os

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Kind = Literal["file", "directory", "symlink", "other"]


@dataclass(frozen=True)
class OpenFile:
    """A regular file, open for reading; `fd` is the holder's to close."""

    fd: int
    info: FileInfo
    etag: str
    """Quoted, as in HTTP; another one as soon as the file is written or replaced."""


def describe_open(path: str, fd: int, status: os.stat_result) -> OpenFile:
    facts = {"mode": status.st_mode, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
    return OpenFile(fd, describe({"path": path, "target": None, **facts}), etag)


def describe(entry: Any) -> FileInfo:
    """What a guest program said of one file."""
    match entry:
        case {
            "path": str(path),
            "mode": int(mode),
            "size": int(size),
            "mtime_ns": int(modified),
            "target": str() | None as target,
        }:
            return FileInfo(
                name=show(posixpath.basename(path.rstrip("/")) or "/"),
                path=show(path),
                type=kind(mode & 0xFFFF),
                size=size,
                mode=f"{mode & 0o7777:04o}",
                modified_at=timestamp(modified),
                target=None if target is None else show(target),
            )
    raise NotReady("the sandbox's file worker made no sense: try again")


def kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC; what no calendar holds becomes the nearest day that one does."""
    try:
        moment = EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        moment = (datetime.max if nanoseconds > 0 else datetime.min).replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
