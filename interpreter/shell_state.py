"""What the service knows of a bash between two commands, and what brings it up to date."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from interpreter import bash
from interpreter.environment import difference, shareable

How = Literal["report", "exited", "timeout", "stopped", "unsent"]


@dataclass(frozen=True)
class Command:
    text: str
    variables: Mapping[str, str]
    """All that is to be exported while it runs."""
    cwd: str
    stdin: bytes | None = None
    timeout: float | None = None
    own: frozenset[str] = frozenset()
    """Names that were given for this command alone: what the shell had is put back after it."""
    execution: str = ""
    keep: int = 0
    """So many bytes of its output must be there again after the service was killed."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. `report` is None where bash could not tell any more.

    "unsent": the service that should have sent it did not come to that.
    """

    how: How
    exit_code: int | None
    report: bash.Report | None
    had: Mapping[str, str]
    """What was exported as it began."""
    killed_harder: bool = False
    shell_exited: bool = False


@dataclass
class ShellState:
    told: dict[str, str]
    """What it exports, as far as is known."""
    covered: set[str] = field(default_factory=set)
    """Names whose values were put aside for the last command."""
    cwd: str | None = None
    last: bash.Report = bash.UNKNOWN

    def text(self, command: Command) -> bytes:
        """The command as it is sourced."""
        last = self.last
        head = bash.preamble(
            status=last.status,
            posix=last.posix,
            aliases=last.aliases,
            inherit_errexit=last.inherit_errexit,
        )
        return head + os.fsencode(command.text)

    def lines(self, command: Command) -> str:
        """What bash has to be told before, which it then knows."""
        lines = bash.put_back(self.covered)
        told = {name: v for name, v in self.told.items() if name not in self.covered}
        self.covered = set(command.own - told.keys())
        lines += bash.put_aside(self.covered)
        lines += bash.change_variables(difference(told, command.variables))
        if command.cwd != self.cwd:
            previous = self.last.exported.get("OLDPWD")
            lines += bash.change_directory(command.cwd)
            lines += bash.forget_previous_directory(previous)
        self.told = dict(command.variables)
        self.cwd = command.cwd
        return lines

    def know(self, report: bash.Report) -> None:
        """bash is now as it says; names private to a place are as it was told."""
        self.last = report
        private = {k: v for k, v in self.told.items() if not shareable(k)}
        self.told = private | {k: v for k, v in report.exported.items() if shareable(k)}
        self.cwd = None if report.gone else report.cwd
