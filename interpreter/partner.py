"""A kernel that runs nothing of ours, as a partner in its session's environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interpreter.languages import Adapter


@dataclass(frozen=True)
class Changes:
    """What a cell did to the environment."""

    cwd: str | None = None
    set: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


@dataclass
class _Told:
    """What the kernel was asked to have, and which steps that took."""

    env: dict[str, str]
    cwd: str
    real: str | None = None
    """The same directory as the kernel names it: without symbolic links."""
    changes: dict[str, str | None] = field(default_factory=dict)


class Partner:
    """What one kernel has of its session's environment, as far as it has confirmed it.

    Around a cell: the code of `before` if any, the cell, the code of `after`. What is displayed
    under `MIME` meanwhile goes to `entered`, then to `changes`. A report that never came loses
    nothing: what was to be applied is sent again, and the next report shows what the cell changed.

    The report is also the fence behind which a cell's output is complete: Deno 2.9 may publish
    output after `idle`, with the parent of the request that followed, but never out of order.
    R aborts what was queued behind a failing or interrupted cell: then `after` is sent again.
    """

    def __init__(self, adapter: Adapter, env: Mapping[str, str], cwd: str) -> None:
        """`env` and `cwd` are what the kernel's process was started with."""
        self._adapter = adapter
        self._told = self._pending = _Told(dict(env), cwd)
        self._has: Mapping[str, str] = dict(env)
        self._cwd: str | None = cwd

    def learn(self, data: object) -> bool:
        """Take in a first report: what a kernel sets for itself as it starts is no change."""
        report = self._adapter.parse(data)
        if report is None:
            return False
        self._has, self._cwd = report.env, report.cwd
        return True

    def before(self, env: Mapping[str, str], cwd: str) -> str | None:
        """Silent code that brings the kernel to `env` and `cwd`; None when it is there."""
        told = self._told
        changes: dict[str, str | None] = dict.fromkeys(told.env.keys() - env.keys())
        changes |= {name: value for name, value in env.items() if told.env.get(name) != value}
        moved = cwd != told.cwd or self._cwd is None
        self._pending = _Told(dict(env), cwd, None if moved else self._cwd, changes)
        return self._adapter.before(changes, cwd if moved else None)

    def after(self) -> str:
        """Silent code that reports."""
        return self._adapter.after()

    def entered(self, data: object) -> str | None:
        """The directory taken in place of a missing one, from what `before`'s code displayed."""
        path = self._adapter.entered(data)
        if path is not None:
            self._pending.cwd = path
        elif (real := self._adapter.real(data)) is not None:
            self._pending.real = real
        return path

    def changes(self, data: object) -> Changes | None:
        """What the cell changed; None when `data` holds no report that can be read."""
        report = self._adapter.parse(data)
        if report is None:
            return None
        had = self._expected()
        changed = {name: value for name, value in report.env.items() if had.get(name) != value}
        gone = tuple(sorted(had.keys() - report.env.keys()))
        asked, real = self._pending.cwd, self._pending.real
        moved = report.cwd if report.cwd not in (asked, real) else None
        told = {name: value for name, value in self._pending.env.items() if name not in gone}
        self._has, self._cwd = report.env, report.cwd
        self._told = self._pending = _Told(told | changed, moved or asked)
        return Changes(moved, changed, gone)

    def _expected(self) -> dict[str, str]:
        had = dict(self._has)
        for name, value in self._pending.changes.items():
            if value is None:
                had.pop(name, None)
            elif self._adapter.holds(name, value):
                had[name] = value
        return had
