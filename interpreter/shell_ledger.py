"""What a shell was told and how it left off, for a service that takes it up."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from interpreter.journal import Journal, records

COMPACT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Sent:
    """The command that bash has, or had last."""

    execution: str
    outputs: int
    """Number of its pair of FIFOs."""
    at: float
    """When it was sent, in seconds since boot."""
    cwd: str
    covered: list[str]
    """Names whose values were put aside for it."""
    owed: list[str]
    """Names put aside for the command before, which this one puts back first."""
    spared: list[int]
    """Processes of earlier commands."""


@dataclass(frozen=True)
class Modes:
    """What bash forgets between two commands and has to be told with the next."""

    status: int = 0
    posix: bool = False
    aliases: bool = True
    inherit_errexit: bool = False


@dataclass
class Past:
    """What a ledger says."""

    had: dict[str, str] = field(default_factory=dict)
    """What was exported as the last command began."""
    sent: Sent | None = None
    halted: bool = False
    """An earlier service was about to end that command."""
    modes: Modes = Modes()
    lingering: dict[int, str] = field(default_factory=dict)
    """Pairs of FIFOs that jobs in the background hold, and whose executions they are."""


class Ledger:
    """Appended to before bash is told anything, so that at most the last step is in doubt."""

    def __init__(self, directory: Path, past: Past) -> None:
        self._path = directory / "ledger"
        self._journal = Journal(self._path)
        self._past = past

    @classmethod
    def fresh(cls, directory: Path) -> Self:
        (directory / "ledger").unlink(missing_ok=True)
        return cls(directory, Past())

    @classmethod
    def reopen(cls, directory: Path) -> tuple[Self, Past]:
        """Raises OSError, ValueError, TypeError or KeyError when it cannot be read."""
        past = cls.read(directory)
        return cls(directory, past), past

    @staticmethod
    def read(directory: Path) -> Past:
        """What it says; raises the same."""
        past = Past()
        for record in records(directory / "ledger"):
            _apply(past, json.loads(record))
        return past

    def sent(self, had: Mapping[str, str], sent: Sent) -> None:
        if self._journal.size > COMPACT_BYTES:
            self._compact()
        changed = {"had": dict(had)} if had != self._past.had else {}
        self._append({**changed, "sent": vars(sent)})

    @property
    def execution(self) -> str:
        """Whose command was sent last."""
        return self._past.sent.execution if self._past.sent else ""

    def halting(self) -> None:
        self._append({"halted": True})

    def ended(self, modes: Modes) -> None:
        self._append({"modes": vars(modes)})

    def lingers(self, outputs: int, execution: str) -> None:
        self._append({"lingers": [outputs, execution]})

    def let_go(self, outputs: int) -> None:
        self._append({"let_go": outputs})

    def close(self) -> None:
        self._journal.close()

    def _append(self, entry: dict[str, Any]) -> None:
        self._journal.append(json.dumps(entry).encode())
        _apply(self._past, entry)

    def _compact(self) -> None:
        """Everything in one record of a new file, which takes the old one's place."""
        past = self._past
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        journal = Journal(fresh)
        entry = {
            "had": past.had,
            "sent": past.sent and vars(past.sent),
            "halted": past.halted,
            "modes": vars(past.modes),
            "lingering": list(past.lingering.items()),
        }
        journal.append(json.dumps(entry).encode())
        os.rename(fresh, self._path)
        self._journal.close()
        self._journal = journal


def _apply(past: Past, entry: dict[str, Any]) -> None:
    if "lingering" in entry:
        past.lingering = dict(entry["lingering"])
    if "had" in entry:
        past.had = entry["had"]
    if "sent" in entry:
        past.sent = Sent(**entry["sent"]) if entry["sent"] else None
        past.halted = False
    past.halted = bool(entry.get("halted", past.halted))
    if "modes" in entry:
        past.modes = Modes(**entry["modes"])
    if "lingers" in entry:
        outputs, execution = entry["lingers"]
        past.lingering[outputs] = execution
    past.lingering.pop(entry.get("let_go", -1), None)
