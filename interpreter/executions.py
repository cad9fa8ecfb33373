"""The executions of one sandbox: begun, found, forgotten."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from interpreter.errors import (
    DiskFull,
    ExecutionForgotten,
    ExecutionMismatch,
    ExecutionNotFound,
)
from interpreter.execution import Execution, Kind
from interpreter.journal import Journal
from interpreter.models import Exec, RunCode
from interpreter.origin import Origin
from interpreter.settings import Settings


class Executions:
    """The executions of one sandbox, oldest first."""

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        on_end: Callable[[], None] = lambda: None,
        journal: Callable[[Path], Journal] = Journal,
    ) -> None:
        """`on_end` is called at the end of each; `journal` makes a new one's."""
        self._journal = journal
        self._directory = directory
        self._on_end = on_end
        self._settings = settings
        self._executions: dict[str, Execution] = {}
        self._forgotten = directory.with_name("executions.forgotten")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._gone = set(self._forgotten.read_text().split()) if self._forgotten.exists() else set()
        self._load()

    def get(self, id: str) -> Execution:
        """Raises ExecutionNotFound."""
        if id not in self._executions:
            if id in self._gone:
                raise ExecutionForgotten(f"the records of execution {id!r} are gone")
            raise ExecutionNotFound(f"this sandbox has no execution {id!r}")
        return self._executions[id]

    def find(self, id: str) -> Execution | None:
        return self._executions.get(id)

    def recorded(self, session: str, context: str, kernel: str) -> int:
        """Number of the last output of a kernel that is recorded in any of its executions."""
        marks = [execution.mark for execution in self.of_context(session, context)]
        numbers = [mark[1] for mark in marks if isinstance(mark, list) and mark[0] == kernel]
        return max(numbers, default=0)

    def of_context(self, session: str, context: str) -> list[Execution]:
        """The runs of code in a context of that name, in the order they were asked for."""
        found = [
            execution
            for execution in self._executions.values()
            if (execution.origin.session, execution.origin.context) == (session, context)
        ]
        # Those of an earlier service were found in the order they ended.
        return sorted(found, key=lambda execution: execution.origin.begun_at)

    def of_session(self, session: str) -> list[Execution]:
        """The commands and runs of code in a session, in the order they were asked for."""
        found = [each for each in self._executions.values() if each.origin.session == session]
        return sorted(found, key=lambda execution: execution.origin.begun_at)

    def begin(
        self,
        kind: Kind,
        session: str,
        request: Exec | RunCode,
        context: str = "",
        *,
        cwd: str | None = None,
        kept: bool = False,
    ) -> Execution:
        """A new one; or, when the request's id names one of the same request, that one, `repeated`.

        `kept`: it goes on without its caller, as one does that has an id of its caller's.

        Raises ExecutionMismatch, ExecutionForgotten.
        """
        origin = Origin.of(kind, session, context, request)
        if request.id is not None:
            known = self._executions.get(request.id)
            if known is not None:
                return _same(known, origin)
            if request.id in self._gone:
                raise ExecutionForgotten(
                    f"execution {request.id!r} was run and its records are gone: use a new id"
                )
        self._evict()
        id = request.id or secrets.token_hex(8)
        journal = None
        try:
            journal = self._journal(self._directory / id)
            kept = kept or request.id is not None
            document = request.model_dump(mode="json", exclude_defaults=True)
            execution = Execution(id, kind, origin, journal, document, cwd=cwd, kept=kept)
        except OSError as error:
            if journal is not None:
                journal.close()
                journal.path.unlink()
            raise DiskFull(f"the execution cannot be recorded: {error.strerror}") from error
        execution.ended.add_done_callback(lambda _: self._on_end())
        self._executions[id] = execution
        if request.id is not None:
            self._given(request.id)
        return execution

    def abandon(self, execution: Execution) -> None:
        """It could not even be queued: as if it had never been asked for."""
        self._executions.pop(execution.id, None)
        if execution.id in self._gone:
            self._gone.discard(execution.id)
            self._forgotten.write_text("".join(f"{id}\n" for id in self._gone))
        execution.fail(ExecutionForgotten("it was never queued"))
        execution.forget()

    def unfinished(self) -> list[Execution]:
        """What runs or waits, in the order it was asked for."""
        found = [execution for execution in self._executions.values() if execution.state != "done"]
        return sorted(found, key=lambda execution: execution.origin.begun_at)

    def __len__(self) -> int:
        return len(self._executions)

    def _given(self, id: str) -> None:
        self._gone.add(id)
        with self._forgotten.open("a") as file:
            file.write(id + "\n")

    def _evict(self) -> None:
        settings, now = self._settings, time.time()
        excess = len(self._executions) - settings.kept_executions + 1
        for execution in list(self._executions.values()):
            if execution.ended_at is None:
                continue
            if excess <= 0 and now - execution.ended_at < settings.kept_seconds:
                break
            excess -= 1
            del self._executions[execution.id]
            execution.forget()

    def _load(self) -> None:
        """The executions of an earlier service, for their records."""
        for path in sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime):
            execution = Execution.restore(path)
            if execution is None:
                path.unlink()
            else:
                self._executions[execution.id] = execution


def _same(known: Execution, origin: Origin) -> Execution:
    if known.origin.fingerprint != origin.fingerprint:
        raise ExecutionMismatch(
            f"execution {known.id!r} is of another request: use a new id, or repeat it exactly"
        )
    known.repeated = True
    return known
