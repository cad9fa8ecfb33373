"""What an earlier service left running of one session, taken up by this one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.commands import Commands
from interpreter.contexts import Context
from interpreter.errors import ContextNotFound, NotReady
from interpreter.execution import Execution
from interpreter.frontend_models import FrontendExec, FrontendRun
from interpreter.sharing import Overlay
from interpreter.surroundings import Surroundings
from kernels.errors import CellshellError

log = logging.getLogger(__name__)


class Succession:
    """Shell and kernels first, then what they were running, then what waited behind it."""

    def __init__(
        self,
        session: str,
        commands: Commands,
        contexts: Mapping[str, Context],
        surroundings: Surroundings,
        tell: Callable[[str, str], None],
    ) -> None:
        self._session = session
        self._commands = commands
        self._contexts = contexts
        self._executions = surroundings.executions
        self._tell = tell

    async def take_up(self, box: Box, live: dict[str, BoxProcess]) -> None:
        """Takes out of `live` what belongs to the session. Waits for no kernel's answer."""
        busy = await self._take_up_shell(box, live)
        for context in self._contexts.values():
            process = live.pop(f"kernel:{self._session}:{context.id}", None)
            if process is not None:
                await self._take_up_kernel(context, box, process)
        self._continue(busy)

    async def _take_up_shell(self, box: Box, live: dict[str, BoxProcess]) -> str | None:
        """The id of the command it is in the middle of."""
        process = live.pop(f"shell:{self._session}", None)
        if process is None:
            return None
        try:
            return await self._commands.take_up(box, process, self._executions.find)
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("a shell could not be taken up: %r", error)
            await process.discard()
            self._tell("shell_restarted", "the service was restarted, and the shell with it")
            return None

    async def _take_up_kernel(self, context: Context, box: Box, process: BoxProcess) -> None:
        record = context.record
        if record is None or process.ended.done():
            log.warning("a kernel could not be taken up: it had not started, or has ended")
            context.lose(process)
            await process.discard()
            return
        after = self._executions.recorded(self._session, context.id, record.id)
        cells = self._executions.of_context(self._session, context.id)
        resumes = any(cell.state == "running" for cell in cells)
        context.take_up(box, process, record, after, resumes=resumes)

    def _continue(self, busy: str | None) -> None:
        for execution in self._executions.unfinished():
            if execution.origin.session != self._session:
                continue
            try:
                if execution.kind == "code":
                    self._continue_cell(execution)
                else:
                    self._continue_command(execution, busy)
            except CellshellError as error:
                execution.fail(error)

    def _continue_cell(self, execution: Execution) -> None:
        context = self._contexts.get(execution.origin.context)
        if context is None:
            raise ContextNotFound(f"context {execution.origin.context!r} is gone")
        request = FrontendRun.model_validate(execution.request)
        if request.client:
            context.attachments.resume(execution, request)
        if execution.state == "running":
            context.continue_(execution)
        elif execution.kept:
            call = Overlay(request.env or {}, execution.cwd)
            context.submit(execution, request, call)
        else:
            raise _unknown()

    def _continue_command(self, execution: Execution, busy: str | None) -> None:
        running = execution.state == "running"
        request = FrontendExec.model_validate(execution.request)
        if request.client:
            self._commands.attachments.resume(execution, request)
        if running and execution.id == busy:
            self._commands.resume(execution)
        elif (execution.kept or running) and not self._commands.was_sent(execution):
            self._commands.submit(execution, request, execution.cwd)
        else:
            raise _unknown()


def _unknown() -> NotReady:
    return NotReady("the service was restarted while this ran: how it ended is not known")
