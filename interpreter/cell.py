"""One run of code on its way: what it puts out, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, Self

from interpreter.clock import Clock, boot_time
from interpreter.environment import Environment
from interpreter.execution import Execution
from interpreter.frontend_models import FrontendRun
from interpreter.kept_output import KeptOutput
from interpreter.models import CodeResult, ErrorInfo, ExitInfo, Notice, RunCode
from interpreter.recording import CodeRecording, event_data
from interpreter.settings import Settings
from interpreter.sharing import Overlay, Ran, Run
from kernels import messages
from kernels.kernel import Death, Kernel
from kernels.specs import KernelLanguage

KILLED_HARDER = Notice(code="killed_harder", message="the interrupt did not end it: it was killed")
OUTPUT_UNFINISHED = Notice(
    code="output_lost",
    message="the kernel answered, but its output has no end: some of it may be lost. If this "
    "happens again, restart the context",
)
OUTPUT_LOST = Notice(
    code="output_lost",
    message="the service was restarted while this ran: some of what it put out meanwhile is lost",
)


class Cell:
    """A run of code in a context."""

    def __init__(
        self,
        execution: Execution,
        request: RunCode,
        call: Overlay,
        language: KernelLanguage,
        settings: Settings,
        environment: Environment,
    ) -> None:
        self.execution = execution
        self.request = request
        self.call = call
        self.kept: KeptOutput | None = None
        self.recording = CodeRecording(
            execution.emit,
            results=language.results,
            max_bytes=request.max_output_bytes,
            journal_bytes=settings.journal_bytes,
        )
        self._language = language.name
        self._environment = environment
        self._kernel: Kernel | None = None
        execution.partial = self.result

    @classmethod
    def restored(
        cls,
        execution: Execution,
        language: KernelLanguage,
        settings: Settings,
        environment: Environment,
    ) -> Self:
        """Of an execution that an earlier service began."""
        request = FrontendRun.model_validate(execution.request)
        call = Overlay(request.env or {}, execution.cwd)
        return cls(execution, request, call, language, settings, environment)

    def asked(self, *, resumed: bool = False) -> Run:
        """What the kernel is to do."""
        told = self.request if isinstance(self.request, FrontendRun) else None
        return Run(
            self.request.code,
            self.call,
            self.on_message,
            self.on_late,
            id=self.execution.id,
            resumed=resumed,
            options=told.options if told else {},
            metadata=told.cell if told else {},
        )

    def begin(self, kernel: Kernel) -> None:
        """From here on it is `kernel` that speaks."""
        self._kernel = kernel

    def on_message(self, event: messages.Event) -> None:
        self.recording.write(event, self.mark)
        if self.kept and isinstance(event, messages.Stream):
            self.kept.write(event.name, event.text.encode("utf-8", "replace"))

    @property
    def on_late(self) -> Callable[[messages.Event], None]:
        """Kept for long after the end, so this cell with all its output does not hang on it."""
        return partial(late, self.execution, self._kernel, self.request.max_output_bytes)

    @property
    def mark(self) -> list[Any] | None:
        """How far the kernel's output has come."""
        return mark_of(self._kernel)

    def result(self, status: str = "interrupted", **fields: Any) -> CodeResult:
        base = {
            "id": self.execution.id,
            "context": self.execution.origin.context,
            "language": self._language,
            "status": status,
            "execution_count": None,
            "duration": boot_time() - self.execution.started_at,
            "cwd": self._environment.cwd,
        }
        return CodeResult.model_validate({**base, **self.recording.fields(), **fields})

    def never_ran(self) -> None:
        """It was stopped while it waited."""
        if self.execution.stopped_by is not None:
            self.execution.fail(self.execution.stopped_by)
        else:
            self.execution.finish(self.result())

    def time_left(self, clock: Clock) -> float | None:
        """Of its timeout, counted from when it began to run."""
        timeout = self.request.timeout
        return timeout and max(0.001, timeout - clock.since(self.execution.started_at))

    def untold(self, ran: Ran) -> dict[str, Any]:
        """An exception that could not even be shown: only the kernel's reply names it."""
        error = ran.outcome.error
        if error is None or ran.outcome.death or self.recording.fields()["error"]:
            return {}
        return {"error": ErrorInfo(**{**asdict(error), "traceback": list(error.traceback)})}


def mark_of(kernel: Kernel | None) -> list[Any] | None:
    return [kernel.record.id, kernel.seen] if kernel is not None and kernel.seen else None


def late(
    execution: Execution, kernel: Kernel | None, max_bytes: int, event: messages.Event
) -> None:
    """Output after the end is the execution's still."""
    for name, data in event_data(event, max_bytes):
        if name == "output":
            execution.late(data, mark_of(kernel))


def died(death: Death) -> dict[str, Any]:
    """The members of a result that tell of the kernel's end."""
    reason: Literal["exit", "signal"] = "signal" if death.signal else "exit"
    return {
        "status": "died",
        "error": ErrorInfo(ename="KernelDied", evalue=f"the kernel ended: {death}", traceback=[]),
        "exit": ExitInfo(code=death.code, signal=death.signal, reason=reason),
    }


def struck_by_memory(fields: dict[str, Any], notices: Sequence[Notice]) -> dict[str, Any]:
    """The same for a kernel that was killed while its sandbox met its memory limit."""
    ended, struck = fields.get("exit"), [n for n in notices if n.code == "memory_limit"]
    if not struck or ended is None or ended.signal != "SIGKILL":
        return fields
    error = fields["error"]
    evalue = f"{error.evalue}; {struck[0].message}"
    return fields | {
        "error": error.model_copy(update={"evalue": evalue}),
        "exit": ended.model_copy(update={"reason": "memory"}),
    }
