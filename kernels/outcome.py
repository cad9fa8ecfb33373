"""How a run of code ended, and how a kernel did."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from kernels import messages, report
from kernels.messages import Error, Message
from kernels.report import Report


@dataclass(frozen=True, slots=True)
class Death:
    """How a kernel's process ended."""

    code: int | None
    signal: str | None

    @classmethod
    def of(cls, status: int) -> Death:
        """Of an exit status; negative: the number of a signal."""
        if status >= 0:
            return cls(status, None)
        with suppress(ValueError):
            return cls(None, signal.Signals(-status).name)
        return cls(None, f"SIG{-status}")

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal else f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """What another process needs to take over a running kernel."""

    id: str
    key: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecuteOutcome:
    """How a run of code ended."""

    status: Literal["ok", "error", "aborted", "died"]
    execution_count: int | None = None
    error: Error | None = None
    report: Report | None = None
    death: Death | None = None
    """Set when the kernel ended, by `exit()` too."""
    whole: bool = True
    """False when the kernel answered and never said that its output is complete."""

    @classmethod
    def of(cls, reply: Message) -> ExecuteOutcome:
        """What an `execute_reply` says. In the wild aborted is also spelt otherwise."""
        status = reply.content.get("status")
        failed = status == "error"
        return cls(
            status="ok" if status == "ok" else "error" if failed else "aborted",
            execution_count=messages.count(reply.content.get("execution_count")),
            error=messages.error(reply.content) if failed else None,
            report=report.parse(reply.metadata),
        )
