"""How a Python kernel takes part in the environment of its session.

Before each cell the session's page is read and what changed there is applied; after it, what the
cell changed is told. Loaded by path inside the kernel's process: nothing beside the standard
library may be imported here.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PRIVATE = frozenset(
    (
        *("_", "SHLVL", "PWD", "OLDPWD", "PPID", "UID", "EUID", "POSIXLY_CORRECT"),
        *("SHELLOPTS", "BASHOPTS", "BASHPID", "BASH_VERSINFO"),
        *("COLUMNS", "LINES", "TERM", "PAGER", "GIT_PAGER", "MPLBACKEND", "HISTFILE"),
        *("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PROMPT_COMMAND", "PS1", "PS2", "PS4"),
    )
)
"""Names that belong to one place and are never shared."""
PRIVATE_PREFIX = re.compile(r"BASH|JPY_|PYDEVD_|CELLSHELL_")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_VALUE_BYTES = 128 * 1024 - 256
MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_SKIPPED = 100
HEADER = struct.Struct("<QQ")
READ_ATTEMPTS = 1000


class Page:
    """The session's page: u64 sequence (odd while it is written), u64 length, JSON."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._file: tuple[int, int] | None = None
        self._sequence = -1

    def changed(self) -> dict[str, Any] | None:
        """The document, when it is not the one read last."""
        self._follow_file()
        for _ in range(READ_ATTEMPTS):
            header = self._header()
            if header is None or header[0] == self._sequence:
                return None
            sequence, length = header
            if sequence % 2 == 0 and length <= MAX_PAGE_BYTES:
                body = os.pread(self._fd, length, HEADER.size)
                if self._header() == header:
                    self._sequence = sequence
                    document = json.loads(body.decode("utf-8", "surrogateescape"))
                    return document if isinstance(document, dict) else None
            os.sched_yield()
        return None

    def _follow_file(self) -> None:
        status = os.stat(self._path)
        if (status.st_dev, status.st_ino) == self._file:
            return
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._file = (status.st_dev, status.st_ino)
        self._sequence = -1

    def _header(self) -> tuple[int, int] | None:
        data = os.pread(self._fd, HEADER.size, 0)
        return HEADER.unpack(data) if len(data) == HEADER.size else None


class ImportPath:
    """`sys.path` follows PYTHONPATH and VIRTUAL_ENV, which Python itself reads at start only."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._seen: tuple[str | None, str | None] = (None, None)
        self._added: list[str] = []

    def follow(self) -> None:
        seen = (self._environ.get("PYTHONPATH"), self._environ.get("VIRTUAL_ENV"))
        if seen == self._seen:
            return
        self._seen = seen
        for entry in self._added:
            with suppress(ValueError):
                sys.path.remove(entry)
        self._added = self._python_path(seen[0]) + self._site_packages(seen[1])
        for entry in self._added:  # one that was not there when it was looked at is remembered so
            sys.path_importer_cache.pop(entry, None)

    def _python_path(self, value: str | None) -> list[str]:
        found = [os.path.abspath(entry) for entry in (value or "").split(os.pathsep) if entry]
        entries = [entry for entry in dict.fromkeys(found) if entry not in sys.path]
        at = 1 if sys.path[:1] == [""] else 0
        sys.path[at:at] = entries
        return entries

    def _site_packages(self, root: str | None) -> list[str]:
        """Of a virtual environment of this Python's version, `.pth` files included."""
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        directory = os.path.join(root or "", "lib", version, "site-packages")
        if not root or directory in sys.path or not os.path.isdir(directory):
            return []
        import site

        before = list(sys.path)
        site.addsitedir(directory)
        entries = [entry for entry in sys.path if entry not in before]
        sys.path[:] = before
        at = next((i for i, entry in enumerate(before) if _is_site(entry)), len(before))
        sys.path[at:at] = entries
        return entries


def _is_site(entry: str) -> bool:
    return os.path.basename(entry) in ("site-packages", "dist-packages")


class Environment:
    """This process's side of the session's environment."""

    def __init__(self, page: str | None, private: Mapping[str, Any]) -> None:
        self._page = Page(page) if page else None
        self._private = set(private.get("env") or {})
        self._private_cwd = isinstance(private.get("cwd"), str)
        self._environ = os.environ  # a user may bind the name in `os` to something else
        self._getcwd = os.getcwd
        self._imports = ImportPath(self._environ)
        self._baseline: dict[bytes, bytes] = {}
        self._told: dict[str, str] = {}
        self._told_cwd: str | None = None
        self._version = 0
        self._missing_cwd: str | None = None
        self._saved: dict[str, str | None] = {}
        self._saved_cwd: str | None = None
        self._apply(private.get("env") or {})
        self._enter(private.get("cwd"))
        self._read_page()
        self._imports.follow()
        self._baseline = dict(self._data)
        self._cwd = self._cwd_now()

    @property
    def given(self) -> dict[str, str]:
        """The variables of the session, and those that are this process's own."""
        return {**self._told, **{n: self._environ[n] for n in self._private if n in self._environ}}

    def before(self, call: object) -> None:
        """Bring this process up to date, and apply what holds for one call alone."""
        self._restore()
        self._read_page()
        if self._cwd_now() is None:
            self._enter(self._told_cwd or self._cwd)
            self._cwd = self._cwd_now()
        if isinstance(call, dict):
            self._apply_call(call)
        self._imports.follow()

    def after(self) -> dict[str, Any] | None:
        """Undo what held for the call; what has changed since it was last told."""
        self._restore()
        report: dict[str, Any] = {}
        cwd = self._cwd_now()
        if cwd != self._cwd and cwd is not None:
            self._cwd = cwd
            if not self._private_cwd:
                self._told_cwd = report["cwd"] = cwd
        if self._data != self._baseline:
            report.update(self._difference())
        if self._missing_cwd is not None:
            report["missing_cwd"] = self._missing_cwd
            self._missing_cwd = None
        return {"version": self._version, **report} if report else None

    def _difference(self) -> dict[str, Any]:
        old, new = self._baseline, dict(self._data)
        self._baseline = new
        changed = {os.fsdecode(key): new[key] for key in new if old.get(key) != new[key]}
        shared = {name: value for name, value in changed.items() if self._shareable(name)}
        fits = {n: os.fsdecode(v) for n, v in shared.items() if len(v) <= MAX_VALUE_BYTES}
        gone = [os.fsdecode(key) for key in old if key not in new]
        unset = [name for name in gone if self._shareable(name)]
        self._told.update(fits)
        for name in unset:
            self._told.pop(name, None)
        skipped = [n for n in changed if n not in fits and not self._is_private(n)]
        found = {"set": fits, "unset": unset, "skipped": skipped[:MAX_SKIPPED]}
        return {key: value for key, value in found.items() if value}

    def _read_page(self) -> None:
        if self._page is None:
            return
        try:
            document = self._page.changed()
            if document is not None:
                self._take(document)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return  # no page, or not one of ours: the process keeps what it has

    def _take(self, document: dict[str, Any]) -> None:
        """Apply what changed on the page since it was read last, or since we told it."""
        env, cwd = dict(document["env"]), document.get("cwd")
        changes = {name: None for name in self._told if name not in env}
        changes.update((n, v) for n, v in env.items() if self._told.get(n) != v)
        self._apply({name: v for name, v in changes.items() if name not in self._private})
        for name in changes:
            self._agree(name)
        self._told = env
        self._version = int(document["version"])
        if isinstance(cwd, str) and cwd != self._told_cwd and not self._private_cwd:
            self._told_cwd = cwd
            self._enter(cwd)
            self._cwd = self._cwd_now()

    def _apply(self, changes: Mapping[str, str | None]) -> None:
        for name, value in changes.items():
            # What the C library refuses (NUL, "=") cannot be had here.
            with suppress(ValueError, TypeError, OSError):
                if value is None:
                    self._environ.pop(name, None)
                else:
                    self._environ[name] = value

    def _apply_call(self, call: dict[str, Any]) -> None:
        env, cwd = call.get("env"), call.get("cwd")
        if isinstance(env, dict):
            with suppress(ValueError):
                self._saved = {name: self._environ.get(name) for name in env}
                self._apply(env)
        if isinstance(cwd, str):
            self._saved_cwd = self._cwd_now()
            self._enter(cwd)

    def _restore(self) -> None:
        if self._saved:
            saved, self._saved = self._saved, {}
            self._apply(saved)
            self._imports.follow()
        if self._saved_cwd is not None:
            cwd, self._saved_cwd = self._saved_cwd, None
            self._enter(cwd)

    def _agree(self, name: str) -> None:
        key = os.fsencode(name)
        if key in self._data:
            self._baseline[key] = self._data[key]
        else:
            self._baseline.pop(key, None)

    def _enter(self, path: str | None) -> None:
        """Change to `path`, or to its nearest parent that is there."""
        at = path
        while at:
            try:
                os.chdir(at)
                break
            except (OSError, ValueError):
                self._missing_cwd = path
                parent = os.path.dirname(at)
                at = parent if parent != at else None

    def _cwd_now(self) -> str | None:
        try:
            return self._getcwd()
        except OSError:
            return None

    @property
    def _data(self) -> dict[bytes, bytes]:
        data: dict[bytes, bytes] = self._environ._data  # type: ignore[attr-defined]
        return data

    def _is_private(self, name: str) -> bool:
        return name in PRIVATE or name in self._private or bool(PRIVATE_PREFIX.match(name))

    def _shareable(self, name: str) -> bool:
        return not self._is_private(name) and NAME.fullmatch(name) is not None
