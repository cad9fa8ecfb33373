"""A queue of executions that run one after the other: one lane a shell, one a context."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from interpreter.errors import AtCapacity, QueueFull, ServiceStopping
from interpreter.execution import Execution
from kernels.errors import CellshellError

log = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]


class Waiting(NamedTuple):
    job: Job
    never_ran: Callable[[], None]


class Lane:
    """Runs jobs in order. A job that is still queued can be stopped without ever running."""

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self._length = length
        self._waiting: dict[Execution, Waiting] = {}
        self._running: Execution | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed: CellshellError | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None

    def submit(self, execution: Execution, job: Job, never_ran: Callable[[], None]) -> None:
        """`never_ran` ends an execution that was stopped while it waited. Raises QueueFull."""
        if self._closed is not None:
            raise self._closed
        if len(self._waiting) >= self._length:
            raise QueueFull(
                f"{len(self._waiting)} runs wait in {self._name} already: wait for some to end"
            )
        self._waiting[execution] = Waiting(job, never_ran)
        execution.stop.add_done_callback(self._stopped)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def running(self) -> Execution | None:
        return self._running

    def stop_all(self, reason: CellshellError | None) -> None:
        """End what runs and what waits; their callers get `reason`, or a result that says so."""
        for execution in list(self._waiting):
            execution.end_early(reason)
        if self._running is not None:
            self._running.end_early(reason)

    async def close(self, reason: CellshellError) -> None:
        """Nothing is taken any more; returns when the last job has ended."""
        self._closed = reason
        self.stop_all(reason)
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._task)

    def leave(self) -> None:
        """Stop working, and leave what runs and waits as it is, for the next service."""
        self._closed = ServiceStopping()
        if self._task is not None:
            self._task.cancel()
        for execution in self._waiting:
            execution.leave()
        if self._running is not None:
            self._running.leave()
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                self._running, job = self._next()
                try:
                    await job()
                except Exception as error:
                    # Also a mistake of ours must cost one execution, not every one behind it.
                    self._running.fail(self._running.stopped_by or _told(error))
                finally:
                    self._running = None
                    del job  # with all the output of the run
        finally:
            self._task = None

    def _next(self) -> tuple[Execution, Job]:
        """Nothing of it stays here, nor with the execution, which is kept for long."""
        execution = next(iter(self._waiting))
        execution.stop.remove_done_callback(self._stopped)
        return execution, self._waiting.pop(execution).job

    def _stopped(self, stop: asyncio.Future[None]) -> None:
        """One that waited never runs."""
        found = next((each for each in self._waiting if each.stop is stop), None)
        if found is None:
            return
        waiting = self._waiting.pop(found)
        if found.stopped_by is not None:
            found.fail(found.stopped_by)
        else:
            waiting.never_ran()


def _told(error: Exception) -> CellshellError:
    """What the callers get for what went wrong on the way."""
    if isinstance(error, CellshellError):
        return error
    if isinstance(error, OSError):
        return AtCapacity(f"the box could not run this: {error.strerror}")
    log.error("an execution failed", exc_info=error)
    return CellshellError("the service made a mistake: its log says more")
