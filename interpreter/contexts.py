"""A code context: one kernel of one language in a session, with a queue."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Literal

import zmq

from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.cell import (
    KILLED_HARDER,
    OUTPUT_LOST,
    OUTPUT_UNFINISHED,
    Cell,
    died,
    struck_by_memory,
)
from interpreter.cell_end import CellEnd, Early
from interpreter.environment import Environment
from interpreter.errors import ContextDeleted, NotReady, ServiceStopping
from interpreter.events import now
from interpreter.execution import Execution
from interpreter.executions import Executions
from interpreter.hints import Hints
from interpreter.inherited import Inherited
from interpreter.kept_output import KeptOutput
from interpreter.kernel_attachments import KernelAttachments
from interpreter.lane import Lane
from interpreter.languages import adapter_for
from interpreter.models import CodeAt, ContextInfo, Notice, RunCode, Variable
from interpreter.overheard import Overheard
from interpreter.seats import Seat
from interpreter.settings import Settings
from interpreter.sharing import Overlay, Ran
from interpreter.spares import Spares
from kernels.errors import CellshellError
from kernels.kernel import Death, Kernel, KernelRecord
from kernels.outcome import ExecuteOutcome
from kernels.specs import KernelLanguage, KernelPaths

TICKS = os.sysconf("SC_CLK_TCK")


class Context:
    """Starts its kernel at first use, and again when it has ended."""

    def __init__(
        self,
        id: str,
        session: str,
        language: KernelLanguage,
        environment: Environment,
        *,
        get_box: Callable[[], Awaitable[Box]],
        paths: Callable[[Box], KernelPaths],
        settings: Settings,
        zmq_context: zmq.Context[Any],
        private: Overlay,
        take_notices: Callable[[], list[Notice]],
        hints: Hints,
        executions: Executions,
        on_start: Callable[[], None],
        spares: Spares,
        created_at: str | None = None,
        record: KernelRecord | None = None,
    ) -> None:
        """`on_start` is called when there is a new kernel."""
        self.id = id
        self.session = session
        self.language = language
        self.created_at = self.last_activity = created_at or now()
        self.lane = Lane(f"context {id!r}", settings.queue_length)
        self.attachments = KernelAttachments()
        self._environment = environment
        self._get_box = get_box
        self._settings = settings
        self._overheard = Overheard(
            session,
            id,
            executions,
            lambda execution, request: self._cell(execution, request, Overlay()),
        )
        self._seat = Seat(
            id,
            session,
            language,
            environment,
            private,
            paths=paths,
            zmq_context=zmq_context,
            spares=spares,
            on_other=self._overheard.hear,
        )
        self._session_notices = take_notices
        self._hints = hints
        self._kernel: Kernel | None = None
        self._starting = asyncio.Lock()
        self.record = record
        """Of the kernel that an earlier service had running."""
        self._on_start = on_start
        self._inherited: Inherited | None = None
        """Of a kernel that was taken up, until it is known to answer."""
        self._lost: str | None = None
        self._end_unheard: Death | None = None
        """How the kernel of an earlier service ended."""
        self._gone: CellshellError | None = None
        """Why there will be no kernel here any more."""

    def info(self) -> ContextInfo:
        return ContextInfo(
            id=self.id,
            session=self.session,
            language=self.language.name,
            kernel=self.language.kernel,
            state=self._state,
            shares_environment=self._shares,
            execution_count=self._kernel.execution_count if self._kernel else 0,
            created_at=self.created_at,
            last_activity=self.last_activity,
        )

    def is_default_of(self, name: str) -> bool:
        """Whether a run in the language called `name`, without a context, comes here."""
        language = self.language
        names = (language.name, *language.aliases, language.kernel)
        return self.id == language.name and name.casefold() in names

    def document(self) -> dict[str, Any]:
        """What brings the context back after the service was restarted."""
        known = {"id": self.id, "language": self.language.name, "created_at": self.created_at}
        record = self._kernel.record if self._kernel else self.record
        kernel = asdict(record) if record else None
        return {**known, **self._seat.document(), "kernel": kernel}

    async def kernel(self) -> Kernel:
        """Its kernel, up. Raises NotReady (KernelFailed) when it does not come up."""
        await self._heard()
        kernel = await self._up()
        self.attachments.follow(kernel)
        self._overheard.follow(kernel)
        return kernel

    def submit(self, execution: Execution, request: RunCode, call: Overlay) -> None:
        """Queue a run. Raises QueueFull."""
        cell = self._cell(execution, request, call)
        self.lane.submit(execution, lambda: self._run(cell), cell.never_ran)

    def take_up(
        self, box: Box, process: BoxProcess, record: KernelRecord, after: int, *, resumes: bool
    ) -> None:
        """The kernel of an earlier service, which had recorded its output up to number `after`.

        `resumes`: `continue_` follows, until when what it has said since has to wait.
        """
        kernel = self._kernel = self._seat.take_up(box, record)
        assert self._seat.place
        self._seat.place.process = process
        self._inherited = Inherited(kernel, process, after, resumes=resumes)

    def continue_(self, execution: Execution) -> None:
        """Queue the rest of what an earlier service was running here."""
        cell = Cell.restored(execution, self.language, self._settings, self._environment)
        self.lane.submit(execution, lambda: self._resume(cell), cell.never_ran)

    def lose(self, process: BoxProcess) -> None:
        """The kernel of an earlier service could not be taken up."""
        self.record = None
        code = process.ended.result() if process.ended.done() else -signal.SIGKILL
        self._end_unheard = Death.of(code)
        self._lost = f"its kernel ended ({self._end_unheard})"

    async def settled(self, until: float) -> None:
        """The kernel that was taken up has answered, or has had until then, in the loop's time."""
        if self._inherited is not None:
            patience = max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait({self._inherited.heard}, timeout=patience)

    async def leave(self) -> None:
        """Let go of everything, for the next service to take up."""
        self._gone = ServiceStopping()
        self.lane.leave()
        self._overheard.leave()
        if self._inherited is not None:
            await self._inherited.leave()
        if self._kernel is not None:
            await self._kernel.detach()

    async def interrupt(self) -> None:
        """What runs now, if anything does."""
        if self._kernel is not None and self._kernel.running:
            await self._kernel.interrupt()

    async def restart(self) -> ContextInfo:
        """A fresh kernel; what ran or waited is interrupted."""
        running, doomed = self.lane.running, self._kernel
        self.attachments.expect_end()
        self.lane.stop_all(None)
        if running is not None:
            await self._seat.end()
            await asyncio.shield(running.ended)
        if self._kernel is doomed:  # else a run that came since has a fresh one already
            await self._discard()
        self._lost = None
        await self.kernel()
        return self.info()

    async def complete(self, where: CodeAt) -> dict[str, Any]:
        return await (await self.kernel()).complete(where.code, where.cursor_pos)

    async def inspect(self, where: CodeAt) -> dict[str, Any]:
        return await (await self.kernel()).inspect(where.code, where.cursor_pos)

    async def variables(self) -> list[Variable]:
        variables = await (await self.kernel()).variables()
        return [Variable.model_validate(asdict(variable)) for variable in variables]

    async def close(self, reason: CellshellError | None = None) -> None:
        """End the kernel at once; whoever waits for a run gets `reason`."""
        reason = self._gone = reason or ContextDeleted(f"context {self.id!r} was deleted")
        self.attachments.expect_end()
        self.lane.stop_all(reason)
        await self._seat.end()
        await self.lane.close(reason)
        await self._discard()
        self.attachments.close(reason.message)

    # Running

    async def _run(self, cell: Cell) -> None:
        execution = cell.execution
        await self._heard(execution.stop)
        kernel = None if execution.stop.done() else await self.kernel()
        if kernel is None or execution.stop.done():
            cell.never_ran()
            return
        notices = [*self._session_notices(), *self._take_notices()]
        count = kernel.execution_count + 1
        execution.start({"context": self.id, "execution_count": count})
        await self._keep(cell)
        cell.begin(kernel)
        await self._finish(cell, kernel, self._start(cell, kernel), count, notices)

    async def _resume(self, cell: Cell) -> None:
        """The rest of what an earlier service was running."""
        kernel, inherited, execution = self._kernel, self._inherited, cell.execution
        cell.recording.resume(execution.entries())
        if kernel is None or inherited is None:
            death = self._end_unheard or Death.of(-signal.SIGKILL)
            execution.finish(cell.result(**died(death), notices=[OUTPUT_LOST]))
            return
        await self._keep(cell, again=True)
        cell.begin(kernel)
        notices: list[Notice] = []
        running = asyncio.ensure_future(self._rest(cell, kernel, inherited, notices))
        await self._finish(cell, kernel, running, execution.execution_count, notices, resumed=True)

    async def _rest(
        self, cell: Cell, kernel: Kernel, inherited: Inherited, notices: list[Notice]
    ) -> Ran:
        await asyncio.wait({inherited.heard})
        if not kernel.running:
            notices.append(OUTPUT_LOST)
            return Ran(ExecuteOutcome("died", death=inherited.death))
        # The run is expected before the kernel is asked what it has said: the tasks start in order.
        running = self._start(cell, kernel, resumed=True)
        if not await inherited.catch_up():
            notices.append(OUTPUT_LOST)
        return await running

    def _start(self, cell: Cell, kernel: Kernel, *, resumed: bool = False) -> asyncio.Future[Ran]:
        run = cell.asked(resumed=resumed)
        return asyncio.ensure_future(self._seat.sharing.run(kernel, run))

    async def _finish(
        self,
        cell: Cell,
        kernel: Kernel,
        running: asyncio.Future[Ran],
        count: int | None,
        notices: list[Notice],
        *,
        resumed: bool = False,
    ) -> None:
        execution, mark = cell.execution, self._hints.mark()
        early, harder = await self._watch(cell, kernel, running, resumed=resumed)
        ran = await running
        if cell.kept:
            cell.kept.close()
        self.last_activity = now()
        if execution.stopped_by is not None:
            execution.fail(execution.stopped_by)
            return
        if resumed and ran.outcome.status == "aborted":
            execution.fail(NotReady("it ended while no service was there to see how"))
            return
        if harder:
            notices.append(KILLED_HARDER)
        if not ran.outcome.whole:
            notices.append(OUTPUT_UNFINISHED)
        failed = ran.outcome.status != "ok"
        notices += self._hints.notices(mark, cell.recording.text, failed=failed)
        fields = {
            **struck_by_memory(self._ending(ran, early), notices),
            **cell.untold(ran),
            "execution_count": ran.outcome.execution_count or count,
            "environment_changes": ran.changes,
            "notices": [*notices, *ran.notices],
            "output_path": cell.kept.path if cell.kept else None,
        }
        execution.finish(cell.result(**fields), cell.mark)

    async def _watch(
        self, cell: Cell, kernel: Kernel, running: asyncio.Future[Ran], *, resumed: bool
    ) -> tuple[Early | None, bool]:
        self.last_activity = now()
        assert self._seat.place and self._seat.place.process
        since = int(cell.execution.started_at * TICKS) if resumed else None
        end = CellEnd(self._seat.place.box, self._seat.place.process, kernel, since=since)
        timeout = cell.time_left(end.clock) if resumed else cell.request.timeout
        grace = self._settings.interrupt_grace
        return await end.watch(running, cell.execution.stop, timeout=timeout, grace=grace)

    def _ending(self, ran: Ran, early: Early | None) -> dict[str, Any]:
        outcome = ran.outcome
        if outcome.death is not None:
            self._lost = f"its kernel ended ({outcome.death})"
            if early is None:
                return died(outcome.death)
        if early is not None:
            return {"status": "timeout" if early == "timeout" else "interrupted"}
        return {"status": "ok" if outcome.status == "ok" else "error"}

    # The kernel

    async def _heard(self, *stops: asyncio.Future[Any]) -> None:
        """The kernel of an earlier service has answered or ended, or one of `stops` is done."""
        if self._inherited is not None:
            box = await self._get_box()
            await self._inherited.wait(box.clock, *stops)

    async def _up(self) -> Kernel:
        async with self._starting:
            box = await self._get_box()
            if self._kernel is not None and self._kernel.running:
                return self._kernel
            if self._kernel is not None:
                self._lost = self._lost or "its kernel had ended"
                await self._discard()
            if self._gone is not None:
                raise self._gone
            try:
                kernel = await self._seat.fill(box)
            except CellshellError as error:
                raise self._gone or error from None
            self._kernel, self.record = kernel, None
            self._on_start()
            return kernel

    async def _discard(self) -> None:
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            await inherited.leave()
        kernel, self._kernel = self._kernel, None
        await self._seat.clear(kernel)

    def _cell(self, execution: Execution, request: RunCode, call: Overlay) -> Cell:
        return Cell(execution, request, call, self.language, self._settings, self._environment)

    async def _keep(self, cell: Cell, *, again: bool = False) -> None:
        if cell.request.keep_output:
            box = await self._get_box()
            cell.kept = await KeptOutput.open(box, cell.execution.id, again=again)

    def _take_notices(self) -> list[Notice]:
        lost, self._lost = self._lost, None
        if lost is None:
            return []
        message = f"context {self.id!r} was started anew since {lost}: its names are gone"
        return [Notice(code="context_restarted", message=message)]

    @property
    def _shares(self) -> bool:
        return self._seat.is_python or adapter_for(self.language.name) is not None

    @property
    def _state(self) -> Literal["starting", "idle", "busy", "dead"]:
        if self._starting.locked():
            return "starting"
        if self.lane.busy:
            return "busy"
        if self._inherited is not None and not self._inherited.heard.done():
            return "starting"
        return "idle" if self._kernel is not None and self._kernel.running else "dead"
