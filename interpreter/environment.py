"""The environment of a session: working directory and exported variables, with a version.

Only the service writes it. Places (shell, kernels, terminals) are brought up to date before they
run something, and what they changed is merged afterwards, variable by variable.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from interpreter.fields import KEPT_BY_BASH, MAX_VALUE_BYTES
from interpreter.models import EnvironmentChanges

PRIVATE = KEPT_BY_BASH | {
    *("COLUMNS", "LINES", "TERM", "PAGER", "GIT_PAGER", "MPLBACKEND", "HISTFILE"),
    *("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PROMPT_COMMAND", "PS1", "PS2", "PS4"),
}
"""Names that each place has for itself: what it sets them to is never shared."""
_PRIVATE_PREFIX = re.compile(r"BASH|JPY_|PYDEVD_|CELLSHELL_")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_TOTAL_BYTES = 1024 * 1024
"""What one environment may hold: far below what Linux lets a program start with."""


def shareable(name: str) -> bool:
    """Whether what a place sets it to is taken over by the others."""
    return (
        name not in PRIVATE
        and not _PRIVATE_PREFIX.match(name)
        and _NAME.fullmatch(name) is not None
    )


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    """What turns `old` into `new`; null unsets."""
    changes: dict[str, str | None] = {
        name: value for name, value in new.items() if old.get(name) != value
    }
    changes.update((name, None) for name in old if name not in new)
    return changes


class Environment:
    """`cwd` and `variables`, published on a page that kernels read.

    `own` are the names the session itself has set or unset: for them it no longer follows the
    sandbox.
    """

    def __init__(
        self, *, cwd: str, variables: Mapping[str, str], own: Mapping[str, str], version: int = 1
    ) -> None:
        self.cwd = cwd
        self.variables: dict[str, str] = {**variables, **own}
        self.own: set[str] = set(own)
        self.version = version
        self._pages: list[Page] = []
        self._subscribers: list[Callable[[], None]] = []

    def merge(
        self, changes: Mapping[str, str | None], cwd: str | None = None
    ) -> EnvironmentChanges:
        """Take over what an operation changed; the names become the session's own."""
        return self.give({n: value for n, value in changes.items() if shareable(n)}, cwd)

    def give(self, changes: Mapping[str, str | None], cwd: str | None = None) -> EnvironmentChanges:
        """The same for what a client asks for, which holds in every place: private names too."""
        self.own.update(changes)
        return self._apply(changes, cwd)

    def inherit(self, changes: Mapping[str, str | None]) -> EnvironmentChanges:
        """Take over what the sandbox changed, where the session has no say of its own."""
        return self._apply({n: v for n, v in changes.items() if n not in self.own}, None)

    def fits(self, changes: Mapping[str, str | None]) -> bool:
        return not self.fitting(changes)[1]

    def fitting(
        self, changes: Mapping[str, str | None]
    ) -> tuple[dict[str, str | None], dict[str, str]]:
        """Those changes there is room for, and the rest: the longest values are left out."""
        taken: dict[str, str | None] = {n: v for n, v in changes.items() if v is None}
        wanted = {name: value for name, value in changes.items() if value is not None}
        if not wanted:
            return taken, {}
        sizes = {name: _size(name, value) for name, value in wanted.items()}
        room = MAX_TOTAL_BYTES - sum(
            _size(name, value) for name, value in self.variables.items() if name not in changes
        )
        left = {}
        for name in sorted(wanted, key=sizes.__getitem__):
            room -= sizes[name]
            if room < 0 or sizes[name] > MAX_VALUE_BYTES + len(name) + 2:
                left[name] = wanted[name]
            else:
                taken[name] = wanted[name]
        return taken, left

    def overlaid(self, changes: Mapping[str, str | None] | None) -> dict[str, str]:
        """The variables with one call's own on top."""
        merged: dict[str, str | None] = {**self.variables, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def publish(self, path: Path) -> Page:
        """Write the environment to `path` now and after each change, until the page is closed."""
        page = Page(path)
        # A kernel that has read the page of an earlier service must see that this one is another.
        self.version = max(self.version, page.version + 1)
        page.write(self)
        self._pages.append(page)
        return page

    def retract(self, page: Page) -> None:
        self._pages.remove(page)
        page.close()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change; returns what ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _apply(self, changes: Mapping[str, str | None], cwd: str | None) -> EnvironmentChanges:
        names_set, names_unset = [], []
        for name, value in changes.items():
            if value is None and name in self.variables:
                del self.variables[name]
                names_unset.append(name)
            elif value is not None and self.variables.get(name) != value:
                self.variables[name] = value
                names_set.append(name)
        moved = cwd if cwd is not None and cwd != self.cwd else None
        self.cwd = moved or self.cwd
        if names_set or names_unset or moved:
            self.version += 1
            self._tell()
        return EnvironmentChanges(cwd=moved, set=sorted(names_set), unset=sorted(names_unset))

    def _tell(self) -> None:
        for page in self._pages:
            page.write(self)
        for callback in list(self._subscribers):
            callback()


def _size(name: str, value: str) -> int:
    """As a program is started with it: `name=value` and NUL."""
    return len(name) + len(value.encode("utf-8", "surrogatepass")) + 2


class Page:
    """A file mapped read-only into the box: u64 sequence, u64 length, JSON.

    The sequence is odd while the page is being written and twice the version after it.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.fchmod(self._fd, 0o644)

    @property
    def version(self) -> int:
        """Of what is on the page; 0 when it is a new one."""
        header = os.pread(self._fd, 16, 0)
        return int(struct.unpack("<QQ", header)[0] + 1) // 2 if len(header) == 16 else 0

    def write(self, environment: Environment) -> None:
        document = {
            "version": environment.version,
            "cwd": environment.cwd,
            "env": environment.variables,
        }
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
        sequence = environment.version * 2
        os.pwrite(self._fd, struct.pack("<QQ", sequence - 1, len(body)), 0)
        os.pwrite(self._fd, body, 16)
        os.pwrite(self._fd, struct.pack("<QQ", sequence, len(body)), 0)

    def close(self) -> None:
        os.close(self._fd)
