"""The product: sandboxes by id, and everything the service owns."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import secrets
from contextlib import AsyncExitStack
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from interpreter import isolation, python_environment
from interpreter.blanks import Blanks
from interpreter.errors import (
    AtCapacity,
    DiskFull,
    NotReady,
    SandboxExists,
    SandboxNotFound,
)
from interpreter.events import now
from interpreter.fork_server import ForkServer
from interpreter.landlock import is_way
from interpreter.limits import Enforcement
from interpreter.models import CreateSandbox, Health, Isolation, Language
from interpreter.premises import with_network
from interpreter.ready_boxes import ReadyBox, ReadyBoxes
from interpreter.registry import Registry
from interpreter.removal import remove_tree
from interpreter.resources import Resources
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings
from interpreter.spares import Spares
from interpreter.sweeping import sweep
from kernels.errors import CellshellError
from kernels.specs import Languages, find_deno

log = logging.getLogger(__name__)

TAKEN_UP_AT_ONCE = 16
PATIENCE = 3.0
"""Seconds that the kernels of an earlier service have to answer before this one listens."""
VERSION = metadata.version("cellshell")


class Interpreter:
    """Made of settings; `async with` starts it and ends it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.languages_here = Languages(deno=find_deno())
        self._isolation = Isolation(tier="none", reason="not started")
        self._sandboxes: dict[str, Sandbox] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._registry: Registry
        self._enforcement: Enforcement
        self._resources: Resources
        self.spares: Spares
        self.ready_boxes: ReadyBoxes
        self.forks: ForkServer | None = None
        """Where Python kernels come from, where boxes can be entered from outside."""
        self._stack = AsyncExitStack()
        self.swept = 0
        """How much was left of boxes and sandboxes that an earlier service had deleted."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._zmq.destroy, linger=0)
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        """`stack` gets what is closed at the end, or when this fails."""
        settings = self.settings
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.home.chmod(0o710 if is_way(settings.home, isolation.box_gid(settings)) else 0o700)
        stack.callback(os.close, _lock(settings.home / "lock"))
        _own_directory(settings.runtime, isolation.box_gid(settings))
        _raise_descriptor_limit()
        await python_environment.ensure(settings, lambda line: None)
        found = await isolation.probe(settings)
        self._enforcement = await Enforcement.probe(settings, found)
        stack.callback(self._enforcement.close)
        self._isolation = self._enforcement.describe(found)
        self._zmq.set(zmq.MAX_SOCKETS, 16_384)
        self._registry = Registry(settings.home / "registry.sqlite")
        stack.callback(self._registry.close)
        blanks = Blanks(settings.home)
        stack.push_async_callback(blanks.close)
        blanks.refill()
        if settings.fork_server and self._isolation.tier == "bwrap":
            self.forks = ForkServer(settings)
            stack.push_async_callback(self.forks.close)
            self.forks.start()
            await asyncio.sleep(0)  # its process begins now, and not when the service is ready
        self.spares = Spares(settings.spare_kernels, self._zmq)
        self._resources = Resources(
            settings,
            self._registry,
            blanks,
            self._isolation,
            self._enforcement,
            self.forks,
            self.spares,
            self.languages_here,
            self._zmq,
            self.delete_sandbox,
        )
        usual = with_network(CreateSandbox(), settings, self._isolation)
        usual = usual.model_copy(update={"limits": self._enforcement.grant(usual.limits)})
        self.ready_boxes = ReadyBoxes(settings.ready_boxes, usual, self._resources)
        stack.push_async_callback(self.ready_boxes.close)
        for number, id, document in self._registry.sandboxes():
            self._sandboxes[id] = self._restore(number, id, document)
        await self._take_up()
        sandboxes = self.sandboxes()
        numbers = {sandbox.number for sandbox in sandboxes}
        # The groups first: a box that is frozen by version 1 does not end before it is let go on.
        await self._enforcement.sweep(sandbox.number for sandbox in sandboxes if sandbox.has_box)
        self.swept = await sweep(
            settings.runtime, settings.home / "sandboxes", numbers, self._sandboxes.keys()
        )
        self.ready_boxes.refill()

    async def _take_up(self) -> None:
        """What the last service left running: some at once, since most of it is waiting."""
        turns = asyncio.Semaphore(TAKEN_UP_AT_ONCE)
        until = asyncio.get_running_loop().time() + PATIENCE

        async def take_up(sandbox: Sandbox) -> None:
            async with turns:
                try:
                    await sandbox.take_up(until)
                except (CellshellError, OSError) as error:  # one costs no other one
                    log.warning("sandbox %r was taken up in part: %s", sandbox.id, error)

        await asyncio.gather(*map(take_up, self.sandboxes()))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.ready_boxes.close()
        await asyncio.gather(*self._removals.values(), return_exceptions=True)
        keep = self.settings.on_stop == "keep"
        if keep:
            await asyncio.gather(*(sandbox.leave() for sandbox in self._sandboxes.values()))
        else:
            await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes.values()))
        if not keep or not self._sandboxes:
            await asyncio.to_thread(remove_tree, self.settings.runtime)
        await self._stack.aclose()

    async def create_sandbox(self, request: CreateSandbox) -> Sandbox:
        """Raises SandboxExists, AtCapacity, LimitUnsupported, NetworkUnsupported, NotReady."""
        id = request.id or f"sandbox-{secrets.token_hex(5)}"
        await self._removed(id)
        if id in self._sandboxes:
            raise SandboxExists(f"there is a sandbox {id!r} already: use PUT to get or create it")
        return await self._create(id, request)

    async def ensure_sandbox(self, id: str, request: CreateSandbox) -> tuple[Sandbox, bool]:
        """The sandbox, and whether this call made it."""
        await self._removed(id)
        sandbox = self._sandboxes.get(id)
        if sandbox is None:
            return await self._create(id, request), True
        await sandbox.box()
        return sandbox, False

    def sandbox(self, id: str) -> Sandbox:
        """Raises SandboxNotFound."""
        if id not in self._sandboxes:
            raise SandboxNotFound(f"there is no sandbox {id!r}: create it first")
        return self._sandboxes[id]

    def sandboxes(self) -> list[Sandbox]:
        return list(self._sandboxes.values())

    def boxes(self) -> int:
        """How many sandboxes have a box that runs."""
        return sum(sandbox.has_box for sandbox in self._sandboxes.values())

    async def delete_sandbox(self, id: str) -> None:
        """A new one of the same id is made after the old one's files are gone."""
        sandbox = self.sandbox(id)
        del self._sandboxes[id]
        removal = self._removals[id] = asyncio.create_task(self._remove(sandbox))
        removal.add_done_callback(lambda _: self._removals.pop(id, None))
        await asyncio.shield(removal)

    async def _remove(self, sandbox: Sandbox) -> None:
        try:
            self._registry.remove_sandbox(sandbox.id)
        except DiskFull:  # there is room when its files are gone
            await sandbox.destroy()
            self._registry.remove_sandbox(sandbox.id)
        else:
            await sandbox.destroy()

    async def _removed(self, id: str) -> None:
        """Until nothing is left of a sandbox of that name that is being deleted."""
        while removal := self._removals.get(id):
            await asyncio.wait({removal})

    def health(self) -> Health:
        return Health(
            ok=True,
            status="running",
            version=VERSION,
            isolation=self._isolation,
            fork_server=self.forks.state if self.forks else "off",
        )

    async def languages(self) -> list[Language]:
        return [
            Language(
                language=language.name,
                aliases=list(language.aliases),
                kernel=language.kernel,
                available=language.available,
                reason=language.reason,
            )
            for language in await asyncio.to_thread(self.languages_here.all)
        ]

    async def _create(self, id: str, request: CreateSandbox) -> Sandbox:
        limits = self._enforcement.grant(request.limits)
        request = with_network(request, self.settings, self._isolation)
        request = with_idle_policy(request, self.settings)
        request = request.model_copy(update={"limits": limits})
        if len(self._sandboxes) >= self.settings.max_sandboxes:
            raise AtCapacity(f"{len(self._sandboxes)} sandboxes are there: delete some first")
        created_at = now()
        document = {
            "request": request.model_dump(mode="json"),
            "env": request.env,
            "created_at": created_at,
        }
        ready = self.ready_boxes.take(request)
        directory = self.settings.home / "sandboxes" / id
        # Of a sandbox whose removal the service did not survive; at once: nobody comes between.
        remove_tree(directory)
        try:
            # Moved before it is known: what nobody knows is swept, what is known has to be there.
            if ready is not None:
                ready.premises.move(directory)
            reserved = ready.premises.number if ready is not None else None
            number = self._registry.add_sandbox(id, document, reserved)
        except (DiskFull, OSError):
            if ready is not None:
                await ready.discard()
            raise
        try:
            sandbox = self._sandboxes[id] = self._restore(number, id, document, ready)
            await sandbox.box()
            await sandbox.ensure_default()
        except BaseException as error:
            made = self._sandboxes.pop(id, None)
            if made is not None:
                await made.destroy()
            self._registry.remove_sandbox(id)  # last: on a full disk there is room for it now
            if isinstance(error, OSError):
                raise DiskFull(f"the sandbox could not be made: {error}") from error
            raise
        return sandbox

    def _restore(
        self, number: int, id: str, document: dict[str, Any], ready: ReadyBox | None = None
    ) -> Sandbox:
        request = CreateSandbox.model_validate(document["request"])
        return Sandbox(
            id,
            number,
            request.model_copy(update={"env": document["env"]}),
            created_at=document["created_at"],
            resources=self._resources,
            ready=ready,
        )


def with_idle_policy(request: CreateSandbox, settings: Settings) -> CreateSandbox:
    """What the request leaves open is as the operator has it; null is never."""
    asked = "idle_timeout" in request.model_fields_set
    timeout = request.idle_timeout if asked else settings.idle_timeout
    policy = (request.on_idle or settings.on_idle) if timeout else request.on_idle
    return request.model_copy(update={"idle_timeout": timeout, "on_idle": policy})


def _lock(path: Path) -> int:
    """One service for one data directory; the lock goes with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode().strip()
        os.close(fd)
        raise NotReady(f"{path.parent} is in use by the service with pid {owner}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def _own_directory(path: Path, boxes: int) -> None:
    """Its name is known to everybody on the machine, so it must be ours and closed."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.geteuid() or path.is_symlink():
        raise NotReady(f"{path} belongs to somebody else: remove it, or set TMPDIR")
    path.chmod(0o710 if is_way(path, boxes) else 0o700)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
