"""A code context: one kernel of one language in a session, with a queue."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Literal

import zmq

from interpreter.box import Box
from interpreter.environment import Environment
from interpreter.errors import ContextDeleted
from interpreter.events import now
from interpreter.executions import Execution
from interpreter.family import children, inside_pid, main_children, started, ticks
from interpreter.hints import no_network
from interpreter.kept_output import KeptOutput
from interpreter.lane import Lane
from interpreter.languages import adapter_for
from interpreter.models import (
    CodeAt,
    CodeResult,
    ContextInfo,
    ErrorInfo,
    ExitInfo,
    Notice,
    RunCode,
    Variable,
)
from interpreter.places import BoxPlace
from interpreter.recording import CodeRecording, event_data
from interpreter.settings import Settings
from interpreter.sharing import Alone, Overlay, OwnKernel, PartnerKernel, Ran, Sharing
from kernels import messages
from kernels.errors import CellshellError, KernelFailed
from kernels.kernel import Death, Kernel
from kernels.specs import PYTHON, KernelLanguage, KernelPaths

Early = Literal["timeout", "stopped"]


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
        network: bool,
        created_at: str | None = None,
    ) -> None:
        self.id = id
        self.session = session
        self.language = language
        self.created_at = self.last_activity = created_at or now()
        self.lane = Lane(f"context {id!r}", settings.queue_length)
        self._environment = environment
        self._get_box = get_box
        self._paths = paths
        self._settings = settings
        self._zmq = zmq_context
        self._private = private
        self._session_notices = take_notices
        self._network = network
        self._kernel: Kernel | None = None
        self._place: BoxPlace | None = None
        self._sharing: Sharing = Alone()
        self._starting = asyncio.Lock()
        self._box: Box | None = None
        self._lost: str | None = None
        self._deleted = False

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
        return {**known, "env": dict(self._private.env), "cwd": self._private.cwd}

    async def start(self) -> None:
        """Have the kernel up. Raises NotReady (KernelFailed) when it does not come up."""
        await self._ready()

    def submit(self, execution: Execution, request: RunCode, call: Overlay) -> None:
        """Queue a run. Raises QueueFull."""
        recording = CodeRecording(
            execution.emit,
            results=self.language.results,
            max_bytes=request.max_output_bytes,
            journal_bytes=self._settings.journal_bytes,
        )
        started = time.monotonic()

        def result(status: str = "interrupted", **fields: Any) -> CodeResult:
            base = {
                "id": execution.id,
                "context": self.id,
                "language": self.language.name,
                "status": status,
                "execution_count": None,
                "duration": time.monotonic() - started,
                "cwd": self._environment.cwd,
            }
            return CodeResult.model_validate({**base, **recording.fields(), **fields})

        async def job() -> None:
            nonlocal started
            started = time.monotonic()
            await self._run(execution, request, call, recording, result)

        execution.partial = result
        self.lane.submit(execution, job, lambda: execution.finish(result()))

    async def interrupt(self) -> None:
        """What runs now, if anything does."""
        if self._kernel is not None and self._kernel.running:
            await self._kernel.interrupt()

    async def restart(self) -> ContextInfo:
        """A fresh kernel; what ran or waited is interrupted."""
        running, doomed = self.lane.running, self._kernel
        self.lane.stop_all(None)
        if doomed is not None:
            doomed.kill()
        if running is not None:
            await asyncio.shield(running.ended)
        if self._kernel is doomed:  # else a run that came since has a fresh one already
            await self._discard()
        self._lost = None
        await self._ready()
        return self.info()

    async def complete(self, where: CodeAt) -> dict[str, Any]:
        return await (await self._ready()).complete(where.code, where.cursor_pos)

    async def inspect(self, where: CodeAt) -> dict[str, Any]:
        return await (await self._ready()).inspect(where.code, where.cursor_pos)

    async def variables(self) -> list[Variable]:
        kernel = await self._ready()
        return [
            Variable(
                name=variable.name,
                type=variable.type,
                shape=list(variable.shape) if variable.shape is not None else None,
                size_bytes=variable.size_bytes,
                preview=variable.preview,
            )
            for variable in await kernel.variables()
        ]

    async def close(self, reason: CellshellError | None = None) -> None:
        """End the kernel at once; whoever waits for a run gets `reason`."""
        self._deleted = True
        reason = reason or ContextDeleted(f"context {self.id!r} was deleted")
        self.lane.stop_all(reason)
        if self._kernel is not None:
            self._kernel.kill()
        await self.lane.close(reason)
        await self._discard()

    # Running

    async def _run(
        self,
        execution: Execution,
        request: RunCode,
        call: Overlay,
        recording: CodeRecording,
        result: Callable[..., CodeResult],
    ) -> None:
        kernel = await self._ready()
        if execution.stop.done() and execution.stopped_by is None:
            execution.finish(result())
            return
        notices = [*self._session_notices(), *self._take_notices()]
        self.last_activity = now()
        count = kernel.execution_count + 1
        execution.start({"context": self.id, "execution_count": count})
        kept = await self._keep(execution, request)

        def on_message(event: messages.Event) -> None:
            recording.write(event)
            if kept and isinstance(event, messages.Stream):
                kept.write(event.name, event.text.encode("utf-8", "replace"))

        def on_late(event: messages.Event) -> None:
            for name, data in event_data(event, request.max_output_bytes):
                if name == "output":
                    execution.late(data)

        running = asyncio.ensure_future(
            self._sharing.run(kernel, request.code, call, on_message, on_late)
        )
        early, harder = await self._watch(running, execution, kernel, request.timeout)
        ran = await running
        if kept:
            kept.close()
        self.last_activity = now()
        if execution.stopped_by is not None:
            execution.fail(execution.stopped_by)
            return
        if harder:
            notices.append(
                Notice(code="killed_harder", message="the interrupt did not end it: it was killed")
            )
        if not self._network:
            notices += no_network(recording.text())
        count = ran.outcome.execution_count or count
        execution.finish(
            result(
                **self._ending(ran, early),
                **_untold(ran, recording),
                execution_count=count,
                environment_changes=ran.changes,
                notices=[*notices, *ran.notices],
                output_path=kept.path if kept else None,
            )
        )

    async def _watch(
        self,
        running: asyncio.Future[Ran],
        execution: Execution,
        kernel: Kernel,
        timeout: float | None,
    ) -> tuple[Early | None, bool]:
        """Wait for the end; on a timeout or a stop, bring it about. Whether it took a kill."""
        since, before = ticks(), self._children()
        waited: set[asyncio.Future[Any]] = {running, execution.stop}
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return None, False
        early: Early = "stopped" if execution.stop.done() else "timeout"
        await self._interrupt(kernel, running)
        harder = not running.done()
        await self._sweep(since, before, kernel_too=harder)
        await asyncio.wait({running})
        return early, harder

    async def _interrupt(self, kernel: Kernel, running: asyncio.Future[Ran]) -> None:
        """Repeated, since a cell that is just being started may miss the first."""
        for share in (0.25, 0.35, 0.4):
            with suppress(KernelFailed):
                await kernel.interrupt()
            await asyncio.wait({running}, timeout=self._settings.interrupt_grace * share)
            if running.done():
                return

    def _children(self) -> list[int]:
        process = self._place.process if self._place else None
        return main_children(process.host_pid) if process else []

    async def _sweep(self, since: int, before: list[int], *, kernel_too: bool) -> None:
        """End what the cell started, wherever it went; what earlier cells started lives."""
        process = self._place.process if self._place else None
        if process is None or self._box is None:
            return
        spared = [
            pid for pid in children(process.host_pid) if pid in before or started(pid) < since
        ]
        inside = [inside_pid(pid) for pid in spared]
        roots, but = [process.pid], [] if kernel_too else [process.pid]
        with suppress(ConnectionError):
            while found := await self._box.kill_tree(roots, signal.SIGKILL, spare=inside, but=but):
                roots = list(dict.fromkeys([*roots, *found]))

    def _ending(self, ran: Ran, early: Early | None) -> dict[str, Any]:
        outcome = ran.outcome
        if outcome.death is not None:
            self._lost = f"its kernel ended ({outcome.death})"
            if early is None:
                return {"status": "died", **_died(outcome.death)}
        if early is not None:
            return {"status": "timeout" if early == "timeout" else "interrupted"}
        return {"status": "ok" if outcome.status == "ok" else "error"}

    # The kernel

    async def _ready(self) -> Kernel:
        async with self._starting:
            if self._kernel is not None and self._kernel.running:
                return self._kernel
            if self._kernel is not None:
                self._lost = self._lost or "its kernel had ended"
                await self._discard()
            if self._deleted:
                raise ContextDeleted(f"context {self.id!r} was deleted")
            self._box = box = await self._get_box()
            spec = self.language.spec(self._paths(box))
            place = self._place = BoxPlace(box, f"{self.session}:{self.id}")
            self._sharing = self._share(box)
            kernel = Kernel(spec, place, self._zmq, on_report=self._reported)
            env = self._environment.overlaid(self._private.env)
            cwd = await box.directory(self._private.cwd or self._environment.cwd)
            env, cwd = self._sharing.start_with(env, cwd)
            await kernel.start(env=env, cwd=cwd, arguments=self._sharing.arguments())
            self._kernel = kernel
            return kernel

    def _share(self, box: Box) -> Sharing:
        if self.language.name == PYTHON.name:
            page = f"{box.paths.run}/env/{self.session}"
            return OwnKernel(self._environment, page, self._private, box.directory)
        adapter = adapter_for(self.language.name)
        if adapter is None:
            return Alone()
        return PartnerKernel(self._environment, adapter, self._private, box.directory)

    def _reported(self, report: Any) -> None:
        """A cell that another client sent, or one whose caller has gone."""
        if isinstance(self._sharing, OwnKernel):
            self._sharing.take(report, [])

    async def _discard(self) -> None:
        kernel, self._kernel = self._kernel, None
        place, self._place = self._place, None
        if kernel is not None:
            await kernel.shutdown(now=True)
        if place is not None:
            await place.close()

    async def _keep(self, execution: Execution, request: RunCode) -> KeptOutput | None:
        keep = request.keep_output
        return await KeptOutput.open(await self._get_box(), execution.id) if keep else None

    def _take_notices(self) -> list[Notice]:
        lost, self._lost = self._lost, None
        if lost is None:
            return []
        message = f"context {self.id!r} was started anew since {lost}: its names are gone"
        return [Notice(code="context_restarted", message=message)]

    @property
    def _shares(self) -> bool:
        return self.language.name == PYTHON.name or adapter_for(self.language.name) is not None

    @property
    def _state(self) -> Literal["starting", "idle", "busy", "dead"]:
        if self._starting.locked():
            return "starting"
        if self.lane.busy:
            return "busy"
        return "idle" if self._kernel is not None and self._kernel.running else "dead"


def _untold(ran: Ran, recording: CodeRecording) -> dict[str, Any]:
    """An exception that could not even be shown: only the kernel's reply names it."""
    error = ran.outcome.error
    if error is None or ran.outcome.death or recording.fields()["error"]:
        return {}
    return {"error": ErrorInfo(**{**asdict(error), "traceback": list(error.traceback)})}


def _died(death: Death) -> dict[str, Any]:
    reason: Literal["exit", "signal"] = "signal" if death.signal else "exit"
    return {
        "error": ErrorInfo(ename="KernelDied", evalue=f"the kernel ended: {death}", traceback=[]),
        "exit": ExitInfo(code=death.code, signal=death.signal, reason=reason),
    }
