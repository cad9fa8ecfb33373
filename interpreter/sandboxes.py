"""A sandbox: one box, and the sessions, processes and executions in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from interpreter.activity import Activity
from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.environment import Environment
from interpreter.errors import (
    AtCapacity,
    CellshellError,
    DiskFull,
    InvalidRequest,
    NotReady,
    SandboxDeleted,
    ServiceStopping,
    SessionDeleted,
    SessionExists,
    SessionNotFound,
)
from interpreter.events import now
from interpreter.executions import Executions
from interpreter.first_directory import first_directory
from interpreter.limit_models import Usage
from interpreter.models import CreateSandbox, CreateSession, SandboxInfo
from interpreter.pausing import Pause
from interpreter.ports import ListeningPort, connect, listening, owns, unheard
from interpreter.premises import PROXY_PORT, Premises
from interpreter.processes import Processes
from interpreter.ready_boxes import ReadyBox
from interpreter.removal import remove_tree
from interpreter.resources import Resources
from interpreter.sessions import Session
from interpreter.surroundings import Surroundings
from interpreter.worker import Worker


class Sandbox:
    """Its box is started when it is needed, and anew when it has ended."""

    def __init__(
        self,
        id: str,
        number: int,
        request: CreateSandbox,
        *,
        created_at: str,
        resources: Resources,
        ready: ReadyBox | None = None,
    ) -> None:
        """`ready` is a box that waited for it."""
        settings, registry = resources.settings, resources.registry
        self.id = id
        self.number = number
        self._resources = resources
        self.created_at = created_at
        self.request = request
        self.env = dict(request.env)
        self.isolation = resources.isolation
        self.directory = settings.home / "sandboxes" / id
        self._registry = registry
        ready = ready or ReadyBox(
            Premises(self.directory, number, request=request, resources=resources)
        )
        self._premises, self._box, self._stack = ready.premises, ready.box, ready.stack
        self._plan = self._premises.plan
        self._pause = Pause(self.directory / "paused.json", self._premises.group)
        self.activity = Activity(
            request.idle_timeout, since=created_at, is_busy=self._is_busy, on_idle=self._on_idle
        )
        self.network_log = self._premises.network_log
        self._starting = asyncio.Lock()
        self._failed = False
        self._gone: CellshellError | None = None
        """Why nothing begins here any more."""
        self._ran_before = self._box is not None
        self._sessions: dict[str, Session] = {}
        self.executions = Executions(
            self.directory / "executions",
            settings,
            on_end=self.activity.touch,
            journal=resources.blanks.journal,
        )
        self.processes = Processes(
            self.box,
            self.directory / "processes",
            kept_bytes=settings.journal_bytes,
            kept_ended=settings.kept_processes,
            most_running=settings.max_processes,
            struck=self._premises.strikes.notices,
        )
        self._worker = Worker(self.box, self.activity.during)
        self._around = Surroundings(
            sandbox=id,
            hints=self._premises.hints,
            settings=settings,
            executions=self.executions,
            get_box=self.box,
            activity=self.activity,
            box_paths=self._plan.paths,
            kernel_paths=self._premises.kernel_paths,
            languages=resources.languages,
            zmq_context=resources.zmq_context,
            spares=resources.spares,
            worker=self._worker,
            records=self.directory / "shells",
            save=lambda session, document: registry.save_session(id, session, document),
            check=registry.check,
        )
        self._restore_sessions()

    def info(self) -> SandboxInfo:
        request = self.request
        return SandboxInfo(
            id=self.id,
            status="paused" if self._pause.active else "failed" if self._failed else "running",
            created_at=self.created_at,
            last_activity=self.activity.last,
            env=dict(self.env),
            limits=request.limits,
            network=request.network,
            idle_timeout=request.idle_timeout,
            on_idle=request.on_idle,
            isolation=self.isolation,
            workspace=self._plan.paths.workspace,
            sessions=list(self._sessions),
            labels=request.labels,
        )

    async def set_env(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        """For all sessions, present and future; what a session has set itself stays."""
        self._registry.check()
        if not all(session.environment.fits(changes) for session in self._sessions.values()):
            raise InvalidRequest("the environment would hold more than 1 MiB: store data in files")
        for name, value in changes.items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = value
        for session in self._sessions.values():
            session.environment.inherit(changes)
        self._registry.save_sandbox(self.id, self.document())
        return dict(self.env)

    async def create_session(self, request: CreateSession) -> Session:
        """Raises SessionExists, AtCapacity, InvalidCwd, DiskFull."""
        self._registry.check()
        self._check_free(request.id or self._free_id())
        cwd = await first_directory(await self.box(), request.cwd)
        id = request.id or self._free_id()
        self._check_free(id)  # others may have come meanwhile
        return await self._add_session(id, cwd=cwd, own=request.env, created_at=now())

    def session(self, id: str) -> Session:
        """Raises SessionNotFound."""
        if id not in self._sessions:
            raise SessionNotFound(
                f"sandbox {self.id!r} has no session {id!r}: list or create sessions"
            )
        return self._sessions[id]

    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    async def delete_session(self, id: str) -> None:
        """`default` comes back fresh at once."""
        session = self.session(id)
        self._registry.remove_session(self.id, id)
        del self._sessions[id]
        if id == "default":
            await self.ensure_default()
        await session.close()

    async def ensure_default(self) -> None:
        if "default" not in self._sessions:
            workspace = self._plan.paths.workspace
            await self._add_session("default", cwd=workspace, own={}, created_at=now())

    @property
    def has_box(self) -> bool:
        return self._box is not None and not self._box.ended.done()

    async def box(self) -> Box:
        """The running box, of a paused sandbox too, which goes on then.

        Raises NotReady when it does not start, SandboxDeleted.
        """
        self.activity.touch()
        box = self._box
        if box is not None and not box.ended.done() and not self._pause.active:
            return box
        self._check_there()  # whoever ends it holds the lock, and waits for who asks here
        async with self._starting:
            self._check_there()
            self._pause.end()
            if self._box is not None and not self._box.ended.done():
                self._premises.warm(self._box)
                return self._box
            if self._box is not None:
                await self._leave_box(self._box)
            if self._ran_before:
                self._tell_restarted()
            return await self._start_box()

    def _check_there(self) -> None:
        if self._gone is not None:
            raise self._gone

    async def pause(self) -> None:
        """Stop all that runs in the box but programs of ours: an upload goes on."""
        await self.box()
        async with self._starting:
            if self.has_box and self._gone is None:
                assert self._box
                await self._pause.begin(
                    self._box, self._worker.host_pids(), first=self._resources.spares.forget
                )

    async def wake(self) -> None:
        """Let it go on."""
        if self._pause.active:
            await self.box()

    def _is_busy(self) -> bool:
        return bool(self.executions.unfinished()) or self.processes.keep_alive()

    async def _on_idle(self) -> None:
        if self.request.on_idle == "destroy":
            await self._resources.delete(self.id)
        elif not self._pause.active:
            await self.pause()

    async def take_up(self, until: float) -> None:
        """After the service was started again: the box of the last one, if it still runs.

        Everything in it goes on: processes, terminals, shells and kernels with what they run. Its
        kernels have until then, in the loop's time, to answer; who does not is heard later.
        """
        self._ran_before = True
        async with self._pause.lifted(lambda: self._box):  # what is taken up has to answer
            found = await Box.find(self._plan, self._premises.group.joins)
            if found is None:
                await self.processes.restore(None, {})
                for execution in self.executions.unfinished():
                    execution.fail(NotReady("the service and the box ended while this ran"))
                return
            self._box, live = found
            self._premises.strikes.watch(self._premises.group)
            with suppress(OSError):
                await self._premises.connect(self._box, self._stack)
            await self.processes.restore(self._box, live)
            for session in self._sessions.values():
                await session.take_up(self._box, live)
            await self._end_unknown(live)
            for session in self._sessions.values():
                await session.settled(until)
            self.activity.touch()

    async def _end_unknown(self, live: Mapping[str, BoxProcess]) -> None:
        """Shells and kernels of sessions that had just been deleted, or were not yet recorded."""
        for name, process in live.items():
            if name.partition(":")[0] in ("shell", "kernel"):
                await process.discard()
        for execution in self.executions.unfinished():
            if execution.origin.session not in self._sessions:
                execution.fail(SessionDeleted(f"session {execution.origin.session!r} is gone"))

    async def leave(self) -> None:
        """Let go of the box and of everything in it, for the next service to take up."""
        self._gone = ServiceStopping()
        self.activity.close()
        async with self._starting:
            self.processes.close()
            for session in self._sessions.values():
                await session.leave()
            await self._worker.close()
            await self._stack.aclose()
            if self._box is not None:
                self._box.leave()

    def _tell_restarted(self) -> None:
        message = "the box had ended and a fresh one was started: files and environment are kept"
        for session in self._sessions.values():
            session.tell("sandbox_restarted", message)

    async def usage(self) -> Usage:
        return await self._premises.usage(self._box if self.has_box else None)

    async def ports(self) -> list[ListeningPort]:
        """What listens in the box, by its kernel's own tables: no process there is asked."""
        found = listening((await self.box()).host_pid, hidden=(PROXY_PORT,))
        # Without walls these are the ports of the whole machine.
        return [port for port in found if self._plan.confined or port.pid is not None]

    async def connect_port(self, port: int) -> socket.socket:
        """A connection to a server in the box. Raises PortUnreachable."""
        box = await self.box()
        ours = self._plan.confined or owns(box.host_pid, port)
        if port == PROXY_PORT or not ours:
            raise unheard(port)
        return await connect(box, port)

    async def close(self) -> None:
        """End the box; files, environments and records stay."""
        reason = self._gone = self._gone or ServiceStopping()
        self.activity.close()
        self._pause.end()
        async with self._starting:
            self.processes.close()
            await asyncio.gather(*(session.close(reason) for session in self._sessions.values()))
            await self._worker.close()
            if self._box is not None:
                await self._leave_box(self._box)

    async def destroy(self) -> None:
        """End everything and remove it, files and records too."""
        self._gone = SandboxDeleted(f"sandbox {self.id!r} was deleted")
        self._pause.end()
        for execution in self.executions.unfinished():
            execution.end_early(self._gone)
        if self._box is not None:
            await self._box.destroy()
        await self.close()
        await self._premises.demolish()
        await asyncio.to_thread(remove_tree, self.directory)
        await asyncio.to_thread(remove_tree, self._plan.run)

    async def _start_box(self) -> Box:
        try:
            box = await self._premises.build(self._stack)
        except Exception as error:
            self._failed = True
            if isinstance(error, OSError):
                raise DiskFull(f"the box cannot be made: {error}") from error
            raise
        self._failed = False
        self._ran_before = True
        self._box = box
        for session in self._sessions.values():
            session.attach(box)
        return box

    async def _leave_box(self, box: Box) -> None:
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        await box.destroy()
        await self._premises.vacate()
        self._box = None

    async def _add_session(
        self, id: str, *, cwd: str, own: Mapping[str, str], created_at: str
    ) -> Session:
        environment = Environment(
            cwd=cwd, variables={**self._premises.variables(), **self.env}, own=own
        )
        session = self._sessions[id] = Session(id, environment, self._around, created_at)
        session.save()
        if self._box is not None and not self._box.ended.done():
            session.attach(self._box)
        return session

    def _restore_sessions(self) -> None:
        for id, document in self._registry.sessions(self.id):
            environment = Environment(
                cwd=document["cwd"], variables={**self._premises.variables(), **self.env}, own={}
            )
            environment.give(document["own"])
            session = Session(id, environment, self._around, document["created_at"])
            session.of_frontend = document.get("of_frontend", False)
            session.restore(document.get("contexts", []))
            self._sessions[id] = session

    def _check_free(self, id: str) -> None:
        if id in self._sessions:
            raise SessionExists(f"sandbox {self.id!r} has a session {id!r} already")
        if len(self._sessions) >= self._resources.settings.max_sessions:
            raise AtCapacity(f"{len(self._sessions)} sessions are there: delete some first")

    def _free_id(self) -> str:
        taken = 1
        while f"session-{taken}" in self._sessions:
            taken += 1
        return f"session-{taken}"

    def document(self) -> dict[str, Any]:
        return {
            "request": self.request.model_dump(mode="json"),
            "env": self.env,
            "created_at": self.created_at,
        }
