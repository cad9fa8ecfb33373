"""Removing a tree that hostile code has made: of any depth, with any modes."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

log = logging.getLogger(__name__)


def remove_tree(path: Path) -> None:
    """All of it, also what its owner may not enter. Symbolic links are never followed.

    Directories are moved up to the root before they are emptied: a tree that is deeper than the
    longest path, or than descriptors or the stack reach, takes no more than a flat one.
    """
    with suppress(FileNotFoundError):
        with _entered(path) as root:
            names = (f"{secrets.token_hex(8)}-{number}" for number in count())
            while _removes_some(root, names):
                continue
        try:
            os.rmdir(path)
        except OSError as error:
            log.warning("a directory of a sandbox could not be removed: %s", error.strerror)


def _removes_some(root: int, names: Iterator[str]) -> bool:
    """One pass over what is in `root`; whether it got anything out of the way."""
    some = False
    with os.scandir(root) as entries:
        for entry in entries:
            with suppress(OSError):
                _remove(entry, root, names)
                some = True
    return some


def _remove(entry: os.DirEntry[str], root: int, names: Iterator[str]) -> None:
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=root)
        return
    with _entered(entry.name, root) as directory:
        _empty(directory, root, names)
    os.rmdir(entry.name, dir_fd=root)


def _empty(directory: int, root: int, names: Iterator[str]) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                # A directory that is given another parent must be writable itself.
                os.chmod(entry.name, 0o700, dir_fd=directory)
                os.rename(entry.name, next(names), src_dir_fd=directory, dst_dir_fd=root)
            else:
                os.unlink(entry.name, dir_fd=directory)


@contextmanager
def _entered(name: str | Path, parent: int | None = None) -> Iterator[int]:
    os.chmod(name, 0o700, dir_fd=parent)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
