"""What a kernel says that nobody here waits for: cells of clients that speak ZeroMQ to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from interpreter.cell import Cell, died, late
from interpreter.execution import Execution
from interpreter.executions import Executions
from interpreter.fields import DEFAULT_OUTPUT_BYTES
from interpreter.models import EnvironmentChanges, RunCode
from kernels import messages, report
from kernels.errors import CellshellError
from kernels.kernel import Death, Kernel
from kernels.messages import ExecuteInput, Message

log = logging.getLogger(__name__)
MOST = 8
"""Cells at once; a kernel that tells of more has not told how the first ended."""


class Overheard:
    """Becomes records, as if it had come through our doors."""

    def __init__(
        self,
        session: str,
        context: str,
        executions: Executions,
        make_cell: Callable[[Execution, RunCode], Cell],
    ) -> None:
        self._session = session
        self._context = context
        self._executions = executions
        self._make_cell = make_cell
        self._kernel: Kernel | None = None
        self._cells: dict[str, Cell] = {}
        """By the id that the other client gave its request."""
        self._interrupts: set[asyncio.Task[None]] = set()

    def follow(self, kernel: Kernel) -> None:
        """This is the kernel now."""
        if kernel is not self._kernel:
            self._kernel = kernel
            kernel.died.add_done_callback(lambda died: self._end(died.result()))

    def hear(self, message: Message) -> None:
        event = messages.event(message)
        if cell := self._cells.get(message.parent):
            self._record(cell, message, event)
        elif execution := self._executions.find(message.parent):  # also of an earlier service
            if event is not None:
                late(execution, self._kernel, DEFAULT_OUTPUT_BYTES, event)
        elif isinstance(event, ExecuteInput):
            self._begin(message.parent, event)

    def leave(self) -> None:
        """The service ends, and the cells go on unheard."""
        for cell in self._cells.values():
            cell.execution.leave()
        self._cells.clear()
        for task in self._interrupts:
            task.cancel()

    def _begin(self, id: str, event: ExecuteInput) -> None:
        if len(self._cells) >= MOST:
            self._finish(next(iter(self._cells)))
        try:
            request = RunCode(code=event.code, context=self._context)
            execution = self._executions.begin(
                "code", self._session, request, self._context, kept=True
            )
        except (ValidationError, CellshellError) as error:
            log.info("a cell of another client is not recorded: %s", error)
            return
        cell = self._cells[id] = self._make_cell(execution, request)
        execution.start({"context": self._context, "execution_count": event.execution_count})
        cell.recording.execution_count = event.execution_count
        execution.stop.add_done_callback(lambda _: self._interrupt())

    def _record(self, cell: Cell, message: Message, event: messages.Event | None) -> None:
        if event is not None and not isinstance(event, ExecuteInput):
            cell.on_message(event)
        if message.content.get("execution_state") != "idle":
            return
        changes = EnvironmentChanges()
        if told := report.parse(message.metadata):
            changes = EnvironmentChanges(
                cwd=told.cwd, set=sorted(told.set), unset=sorted(told.unset)
            )
        failed = cell.recording.fields()["error"] is not None
        status = "error" if failed else "ok"
        self._finish(message.parent, status=status, environment_changes=changes)

    def _end(self, death: Death) -> None:
        for id in list(self._cells):
            self._finish(id, **died(death))

    def _finish(self, id: str, status: str = "interrupted", **fields: Any) -> None:
        cell = self._cells.pop(id)
        count = cell.recording.execution_count
        cell.execution.finish(cell.result(status, execution_count=count, **fields), cell.mark)

    def _interrupt(self) -> None:
        """Whoever cancels one: the kernel's end of it is waited for."""
        if self._kernel is not None and self._kernel.running and self._cells:
            task = asyncio.get_running_loop().create_task(self._kernel.interrupt())
            self._interrupts.add(task)
            task.add_done_callback(self._interrupts.discard)
