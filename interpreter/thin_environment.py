"""The virtual environment in each sandbox's home: thin, over the shared kernel environment.

pip acts in it; what it does not have is found in the shared one by way of one `.pth` file.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from interpreter.python_environment import INSIDE, PythonEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = ".venv"
STAGE = ".venv.new"
MAX_SHEBANG = 120


def write_thin_environment(
    home: Path,
    environment: PythonEnvironment,
    *,
    inside_home: str = "/home/user",
    inside_environment: str = INSIDE,
    uid: int | None = None,
) -> bool:
    """Make `.venv` in a home, for `uid`. False when something of that name is there already.

    The home may hold what hostile code left there: nothing is followed, nothing overwritten.
    """
    root = f"{inside_home}/{NAME}"
    with _opened(home) as top:
        if _exists(NAME, top):
            return False
        _remove(STAGE, top)
        try:
            with _Folder.make(STAGE, top, uid) as stage:
                _write(stage, environment, root, environment.site_packages(inside_environment))
            os.rename(STAGE, NAME, src_dir_fd=top, dst_dir_fd=top)
        except OSError:
            _remove(STAGE, top)
            if not _exists(NAME, top):
                raise
            return False  # made from inside in the meantime
    return True


def _write(stage: _Folder, environment: PythonEnvironment, root: str, shared: str) -> None:
    version = environment.version
    stage.file(
        "pyvenv.cfg",
        f"home = {os.path.dirname(environment.executable)}\n"
        "include-system-site-packages = false\n"
        f"version = {version}\n"
        f"executable = {environment.executable}\n",
    )
    stage.link("lib64", "lib")
    with stage.folder("bin") as bin_:
        bin_.link("python", environment.executable)
        bin_.link("python3", "python")
        bin_.link(f"python{version}", "python")
        bin_.file("activate", ACTIVATE.replace("@ROOT@", root))
        for name, (module, function) in environment.scripts.items():
            bin_.file(name, _script(f"{root}/bin/python", module, function), 0o755)
    with (
        stage.folder("lib") as lib,
        lib.folder(f"python{version}") as python,
        python.folder("site-packages") as packages,
    ):
        packages.file("_shared.pth", f"import site; site.addsitedir({shared!r})\n")


def _script(python: str, module: str, function: str) -> str:
    start = f"#!{python}\n"
    if len(start) > MAX_SHEBANG or " " in python:
        start = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
    name = function.partition(".")[0]
    return f"{start}import sys\nfrom {module} import {name}\nsys.exit({function}())\n"


class _Folder:
    """A directory by its descriptor, so that nobody can put another in its place."""

    def __init__(self, fd: int, uid: int | None) -> None:
        self._fd = fd
        self._owner = -1 if uid is None else uid

    @classmethod
    @contextmanager
    def make(cls, name: str, parent: int, uid: int | None) -> Iterator[_Folder]:
        os.mkdir(name, 0o700, dir_fd=parent)
        with _opened(name, parent) as fd:
            folder = cls(fd, uid)
            yield folder
            os.fchown(fd, folder._owner, folder._owner)
            os.fchmod(fd, 0o755)

    @contextmanager
    def folder(self, name: str) -> Iterator[_Folder]:
        uid = None if self._owner < 0 else self._owner
        with _Folder.make(name, self._fd, uid) as folder:
            yield folder

    def file(self, name: str, text: str, mode: int = 0o644) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, mode, dir_fd=self._fd)
        try:
            data = os.fsencode(text)
            while data:
                data = data[os.write(fd, data) :]
            os.fchown(fd, self._owner, self._owner)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def link(self, name: str, target: str) -> None:
        os.symlink(target, name, dir_fd=self._fd)
        os.chown(name, self._owner, self._owner, dir_fd=self._fd, follow_symlinks=False)


@contextmanager
def _opened(path: str | Path, parent: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(name: str, parent: int) -> None:
    """What a start before was stopped at, or somebody put there."""
    if not _exists(name, parent):
        return
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=parent)


ACTIVATE = """\
# Use it with: source .venv/bin/activate
deactivate() {
    if [ -n "${_OLD_VIRTUAL_PATH:-}" ]; then
        PATH="$_OLD_VIRTUAL_PATH"
        export PATH
        unset _OLD_VIRTUAL_PATH
    fi
    if [ -n "${_OLD_VIRTUAL_PS1:-}" ]; then
        PS1="$_OLD_VIRTUAL_PS1"
        unset _OLD_VIRTUAL_PS1
    fi
    unset VIRTUAL_ENV VIRTUAL_ENV_PROMPT
    hash -r 2>/dev/null
    [ "${1:-}" = nondestructive ] || unset -f deactivate
}
deactivate nondestructive
VIRTUAL_ENV="@ROOT@"
VIRTUAL_ENV_PROMPT="(.venv) "
export VIRTUAL_ENV VIRTUAL_ENV_PROMPT
_OLD_VIRTUAL_PATH="$PATH"
PATH="$VIRTUAL_ENV/bin:$PATH"
export PATH
if [ -z "${VIRTUAL_ENV_DISABLE_PROMPT:-}" ] && [ -n "${PS1:-}" ]; then
    _OLD_VIRTUAL_PS1="$PS1"
    PS1="(.venv) $PS1"
fi
hash -r 2>/dev/null
"""
