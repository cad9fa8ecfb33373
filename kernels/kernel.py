"""One kernel: its life, and what is asked of it."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpec

from kernels import messages, report
from kernels.connection import KernelConnection, Watcher
from kernels.endpoints import opened
from kernels.errors import KernelFailed, LanguageUnavailable
from kernels.live import LiveKernel
from kernels.messages import Event, ExecuteInput, Message
from kernels.outcome import Death, ExecuteOutcome, KernelRecord
from kernels.place import Place, PlacedProcess
from kernels.provisioner import PlacedKernelManager
from kernels.report import Report
from kernels.request import Request
from kernels.variables import KernelVariable, variables

START_TIMEOUT = 60.0
INTERRUPT_GRACE = 0.5
EXIT_GRACE = 3.0
ASSIGN_TIMEOUT = 1.0
"""A kernel that waits for work answers at once; after this another one is started."""

OnEvent = Callable[[Event], None]

__all__ = ["Death", "ExecuteOutcome", "Kernel", "KernelRecord", "OnEvent"]


class Kernel:
    """A kernel in a place. Runs are queued by the kernel, in the order of the calls."""

    def __init__(
        self,
        spec: KernelSpec,
        place: Place,
        context: zmq.Context[Any],
        *,
        on_other: Callable[[Message], None] | None = None,
        on_report: Callable[[Report], None] | None = None,
        record: KernelRecord | None = None,
    ) -> None:
        self.spec = spec
        self.execution_count = 0
        self.died: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        """Completes when the process ends, by whatever hand; a new one for each start."""
        self._context = context
        self._on_other = on_other
        self._on_report = on_report
        self._record = record or KernelRecord(secrets.token_hex(4), secrets.token_hex(32))
        self._manager = PlacedKernelManager(
            spec,
            place,
            context,
            short_id=self._record.id,
            key=self._record.key.encode(),
            on_shutdown=self._ask_shutdown,
        )
        self._lifecycle = asyncio.Lock()
        self._live: LiveKernel | None = None

    @property
    def running(self) -> bool:
        return self._live is not None and not self._live.died.done()

    @property
    def pid(self) -> int | None:
        """As the place counts; None before the start."""
        return self._live.process.pid if self._live else None

    @property
    def record(self) -> KernelRecord:
        return self._record

    def endpoint(self, channel: str) -> str:
        """Where another client in this process connects to while the kernel runs."""
        return self._running().connection.endpoints[channel]

    @property
    def connection(self) -> dict[str, Any]:
        """What a Jupyter connection file for it holds, on this machine."""
        return {**self._manager.placed.connection(), "kernel_name": self.spec.name}

    async def start(
        self,
        *,
        env: Mapping[str, str],
        cwd: str,
        arguments: Sequence[str] = (),
        timeout: float = START_TIMEOUT,
    ) -> None:
        """Start, and return when it answers. Raises KernelFailed; then nothing is left of it."""
        async with self._lifecycle:
            self._record = replace(self._record, arguments=tuple(arguments))
            await self._start(env, cwd, timeout)

    async def restart(
        self, *, env: Mapping[str, str], cwd: str, now: bool = True, timeout: float = START_TIMEOUT
    ) -> None:
        """End the kernel and start a fresh one: names and execution count are gone."""
        async with self._lifecycle:
            await self._end(now=now, restart=True)
            await self._start(env, cwd, timeout)

    async def attach(
        self, process: PlacedProcess, *, timeout: float | None = START_TIMEOUT
    ) -> None:
        """Take over the running kernel that `record` tells of. Raises KernelFailed; it runs on.

        What it puts out is held back until `catch_up`, so that runs can be taken up before.
        """
        async with self._lifecycle:
            self._manager.placed.adopt(process)
            try:
                async with asyncio.timeout(timeout):
                    await self._connect("control", holding=True)
            except BaseException as error:
                await self._leave()
                if timeout is not None and isinstance(error, TimeoutError):
                    raise self._too_slow(timeout) from None
                raise

    async def assign(
        self,
        arguments: Sequence[str],
        *,
        on_other: Callable[[Message], None] | None,
        on_report: Callable[[Report], None] | None,
    ) -> bool:
        """Make a kernel that was started for nobody the one that `arguments` would have made.

        False when it cannot be that: then it is of no use.
        """
        self._on_other, self._on_report = on_other, on_report
        self._record = replace(self._record, arguments=tuple(arguments))
        reply = await self._running().ask(
            "control", "assign_request", {"arguments": list(arguments)}, ASSIGN_TIMEOUT
        )
        return reply.get("status") == "ok"

    async def catch_up(self, after: int) -> bool:
        """Hand on what the kernel said after number `after`; whether nothing of it was lost.

        A kernel that does not count has only what it said since `attach`.
        """
        live = self._running()
        replay = await live.connection.catch_up(after if live.is_ours else None)
        self.execution_count = max(self.execution_count, replay.execution_count)
        return replay.complete and not replay.lost

    @property
    def seen(self) -> int:
        """Number of the output being handed on, or last handed on; 0: it does not count."""
        return self._live.connection.seen if self._live else 0

    @property
    def aside(self) -> str:
        """The channel on which it answers while a cell runs, if there is one."""
        return self._running().aside

    @property
    def repeats(self) -> bool:
        """Whether a run may be sent again under its id: the kernel runs it once."""
        return self._live is not None and self._live.is_ours

    async def shutdown(self, *, now: bool = False) -> None:
        """End the kernel: asked politely first, unless `now`."""
        async with self._lifecycle:
            await self._end(now=now, restart=False)

    async def detach(self) -> None:
        """Leave the kernel running, for another process to attach to."""
        async with self._lifecycle:
            await self._leave()

    def kill(self) -> None:
        """SIGKILL. `died` tells when it took effect."""
        if self._live is not None and self.running:
            self._live.send_signal(signal.SIGKILL)

    async def execute(
        self,
        code: str,
        *,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        silent: bool = False,
        shown: bool = False,
        options: Mapping[str, Any] = MappingProxyType({}),
        on_message: OnEvent | None = None,
        on_late: OnEvent | None = None,
    ) -> ExecuteOutcome:
        """Run code. `on_message` gets what it puts out, `on_late` what comes after its end.

        A caller that is cancelled leaves it running: `interrupt` ends it. `id` names the run, for
        whoever takes it up after `attach`: where the kernel `repeats`, by the same call again.
        `shown`: whoever watches the kernel sees it; `options` are further members of the request.
        """
        live = self._running()
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            **options,
            "stop_on_error": False,
        }
        told = (metadata or {}).get(report.KEY, {})
        if live.is_ours and isinstance(told, Mapping):
            metadata = {**(metadata or {}), report.KEY: {**told, "seen": live.connection.seen}}
        request = live.connection.request(
            "shell",
            "execute_request",
            content,
            id=id,
            metadata=metadata,
            on_message=partial(self._event, on_message),
            on_late=partial(self._event, on_late),
            shown=shown,
        )
        return await self._result(live, request)

    def forward(self, channel: str, parts: Sequence[bytes], buffers: Sequence[bytes] = ()) -> None:
        """Send a request as somebody else has written it; its answers are for who watches."""
        self._running().connection.forward(channel, parts, buffers)

    def watch(self, watcher: Watcher) -> None:
        """Have all heard that is not between the service and the kernel alone."""
        self._running().connection.watcher = watcher

    async def follow(
        self, id: str, *, on_message: OnEvent | None = None, on_late: OnEvent | None = None
    ) -> ExecuteOutcome:
        """The rest of a run that was sent before `attach`; `aborted` when it ended unseen."""
        live = self._running()
        request = live.connection.follow(
            id, partial(self._event, on_message), partial(self._event, on_late)
        )
        return await self._result(live, request)

    async def interrupt(self) -> None:
        """Interrupt what runs, its subprocesses included."""
        live = self._running()
        by_message = self.spec.interrupt_mode == "message"
        if by_message or live.is_ours:
            request = live.connection.request("control", "interrupt_request", {}, wait_idle=False)
            await asyncio.wait({request.done}, timeout=INTERRUPT_GRACE)
            if by_message or request.done.done():
                return
        live.send_signal(signal.SIGINT)

    async def complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Content of the `complete_reply`."""
        live, content = self._running(), {"code": code, "cursor_pos": cursor_pos}
        return dict(await live.ask(live.aside, "complete_request", content))

    async def inspect(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Content of the `inspect_reply`."""
        live, content = self._running(), {"code": code, "cursor_pos": cursor_pos, "detail_level": 0}
        return dict(await live.ask(live.aside, "inspect_request", content))

    async def variables(self) -> list[KernelVariable]:
        """What the user's names hold, also while code runs."""
        live = self._running()
        if not live.is_ours:
            raise LanguageUnavailable(
                f"expected a kernel that lists its variables, and the kernel of "
                f"{self.spec.language or 'this language'} does not"
            )
        return variables(await live.ask("control", "variables_request", {}))

    async def _start(self, env: Mapping[str, str], cwd: str, timeout: float) -> None:
        if self.running:
            raise KernelFailed("expected a kernel that has not been started, and it runs")
        arguments = self._record.arguments
        try:
            async with asyncio.timeout(timeout):
                await self._manager.start_kernel(env=dict(env), cwd=cwd, arguments=arguments)
                await self._connect("shell")
        except BaseException as error:
            await self._end(now=True, restart=False)
            if isinstance(error, TimeoutError):
                raise self._too_slow(timeout) from None
            if isinstance(error, OSError):
                raise KernelFailed(f"expected the kernel to start: {error}; try again") from error
            raise

    async def _connect(self, channel: str, *, holding: bool = False) -> None:
        """To the process of the provisioner; returns when it answers on `channel`."""
        process = self._manager.placed.process
        assert process is not None
        connection = KernelConnection(
            self._context,
            await opened(process, self._manager.placed.prefix),
            key=self._record.key.encode(),
            session=self._record.id,
            on_other=self._other,
            holding=holding,
        )
        self.execution_count = 0
        if self.died.done():
            self.died = asyncio.get_running_loop().create_future()
        self._live = LiveKernel(connection, process, self.died)
        await self._live.handshake(channel)

    async def _end(self, *, now: bool, restart: bool) -> None:
        live = self._live
        await self._manager.shutdown_kernel(now=now, restart=restart)
        self._live = None
        if live is not None and not await live.ended(EXIT_GRACE):
            await live.leave()
            raise KernelFailed(
                f"expected the kernel to end, and process {live.process.pid} does not"
            )

    async def _leave(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.leave()
        self._manager.placed.adopt(None)

    async def _result(self, live: LiveKernel, request: Request) -> ExecuteOutcome:
        try:
            reply = await request.wait()
        except asyncio.CancelledError:
            request.abandon()
            request.done.add_done_callback(self._abandoned)
            raise
        if reply is None:
            if live.died.done():
                return ExecuteOutcome("died", death=live.died.result())
            return ExecuteOutcome("aborted")
        outcome = replace(ExecuteOutcome.of(reply), whole=request.idle)
        if outcome.report is None or outcome.report.exit is None:
            return outcome
        if not await live.ended(EXIT_GRACE):
            live.send_signal(signal.SIGKILL)
        return replace(outcome, death=await asyncio.shield(live.died))

    def _running(self) -> LiveKernel:
        if self._live is None or not self.running:
            raise KernelFailed("expected a running kernel, and it is not: start it")
        return self._live

    def _too_slow(self, timeout: float) -> KernelFailed:
        return KernelFailed(
            f"expected the kernel of {self.spec.language or 'the language'} to answer within "
            f"{timeout:g} s, and it did not: give it longer, or look at its log"
        )

    def _ask_shutdown(self, restart: bool) -> None:
        if self._live is not None and self.running:
            content = {"restart": restart}
            self._live.connection.request("control", "shutdown_request", content, wait_idle=False)

    def _event(self, listener: OnEvent | None, message: Message) -> None:
        event = messages.event(message)
        if isinstance(event, ExecuteInput) and event.execution_count is not None:
            self.execution_count = event.execution_count
        if event is not None and listener is not None:
            listener(event)

    def _other(self, message: Message) -> None:
        """Output of cells that other clients sent, and what belongs to none."""
        self._event(None, message)
        if message.type == "status":
            self._tell_report(report.parse(message.metadata))
        if self._on_other is not None:
            self._on_other(message)

    def _abandoned(self, done: asyncio.Future[Message | None]) -> None:
        reply = done.result()
        self._tell_report(report.parse(reply.metadata) if reply else None)

    def _tell_report(self, told: Report | None) -> None:
        if told is not None and self._on_report is not None:
            self._on_report(told)
