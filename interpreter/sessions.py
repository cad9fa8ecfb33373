"""A session: a shell, code contexts and files that share one environment."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from interpreter import git
from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.commands import Commands, stdin_bytes
from interpreter.contexts import Context
from interpreter.deeds import Deeds
from interpreter.environment import Environment, Page
from interpreter.errors import (
    AtCapacity,
    ContextExists,
    ContextNotFound,
    DiskFull,
    InvalidCwd,
    InvalidRequest,
    LanguageAndContext,
    LanguageUnavailable,
    LanguageUnknown,
    QueueFull,
    SessionDeleted,
)
from interpreter.events import now
from interpreter.execution import Execution
from interpreter.files import Files
from interpreter.models import (
    Checkout,
    CreateContext,
    EnvironmentInfo,
    Exec,
    GitCheckout,
    Notice,
    RunCode,
    SessionInfo,
)
from interpreter.sharing import Overlay
from interpreter.succession import Succession
from interpreter.surroundings import Surroundings
from interpreter.terminals import Terminals
from kernels.errors import CellshellError
from kernels.kernel import KernelRecord
from kernels.specs import KernelLanguage

log = logging.getLogger(__name__)
SAVED_AGAIN_AFTER = 5.0

T = TypeVar("T", Exec, RunCode)


class Session:
    """Everything here acts in one environment."""

    def __init__(
        self, id: str, environment: Environment, surroundings: Surroundings, created_at: str
    ) -> None:
        self.id = id
        self.environment = environment
        self.created_at = created_at
        self.last_activity = now()
        self.of_frontend = False
        """Whether a Jupyter frontend has started it, and may end it."""
        self._around = surroundings
        self._get_box = surroundings.get_box
        self._contexts: dict[str, Context] = {}
        self._notices: list[Notice] = []
        self.commands = Commands(
            id,
            environment,
            get_box=self._get_box,
            settings=surroundings.settings,
            take_notices=self._take_notices,
            hints=surroundings.hints,
            records=surroundings.records / id,
        )
        self.deeds = Deeds(surroundings.records.with_name("deeds") / id)
        self.files = Files(self._get_box, self.resolve, surroundings.worker, self.deeds.note)
        self.terminals = Terminals(self._get_box, self)
        self._page: Page | None = None
        self._deleted = False
        self._unsubscribe = environment.subscribe(self.save)
        self._again: asyncio.TimerHandle | None = None

    def info(self) -> SessionInfo:
        return SessionInfo(
            id=self.id,
            sandbox=self._around.sandbox,
            cwd=self.environment.cwd,
            created_at=self.created_at,
            last_activity=self.last_activity,
            contexts=[context.info() for context in self._contexts.values()],
        )

    def environment_info(self) -> EnvironmentInfo:
        environment = self.environment
        return EnvironmentInfo(
            cwd=environment.cwd, env=dict(environment.variables), version=environment.version
        )

    async def set_env(self, changes: Mapping[str, str | None]) -> EnvironmentInfo:
        """Raises InvalidRequest when the whole would be too large for Linux to start a program."""
        self._check_fits(changes)
        self._touch()
        self._around.check()
        self.environment.give(changes)
        self.deeds.note("set_env", names=sorted(changes))
        return self.environment_info()

    async def exec(self, request: Exec, *, kept: bool = False) -> Execution:
        """Queue a command. Raises what can be known before it runs.

        `kept`: it goes on when nobody waits for it, as one does that was given an id.
        """
        self._touch()
        begin = self._around.executions.begin
        if self._around.executions.find(request.id or ""):
            return begin("exec", self.id, request)  # what it did may be in the way of a repetition
        stdin_bytes(request)
        request = self._within_time(request)
        self._check_fits(request.env or {})
        cwd = await self._call_directory(request.cwd)
        execution = begin("exec", self.id, request, cwd=cwd, kept=kept)
        if not execution.repeated:
            self._submit(execution, lambda: self.commands.submit(execution, request, cwd))
        return execution

    async def run_code(self, request: RunCode, *, kept: bool = False) -> Execution:
        """Queue a run in a context, by default the session's own of the language."""
        self._touch()
        begin = self._around.executions.begin
        if self._around.executions.find(request.id or ""):
            return begin("code", self.id, request)
        self._check_fits(request.env or {})
        request = self._within_time(request)
        context = self._context_for(request)
        call = Overlay(request.env or {}, await self._call_directory(request.cwd))
        execution = begin("code", self.id, request, context.id, cwd=call.cwd, kept=kept)
        if not execution.repeated:
            self._submit(execution, lambda: context.submit(execution, request, call))
        return execution

    def _within_time(self, request: T) -> T:
        """No longer than the operator allows."""
        most = self._around.settings.max_seconds
        if most is None or (request.timeout is not None and request.timeout <= most):
            return request
        return request.model_copy(update={"timeout": most})

    async def create_context(self, request: CreateContext) -> Context:
        """Raises ContextExists, LanguageUnknown, LanguageUnavailable, InvalidCwd, NotReady."""
        self._touch()
        self._around.check()
        language = self._around.languages.find(request.language)
        self._check_fits(request.env or {})
        id = request.id or self._free_id(language.name)
        if id in self._contexts:
            raise ContextExists(f"session {self.id!r} has a context {id!r} already")
        private = Overlay(request.env or {}, await self._call_directory(request.cwd))
        if id in self._contexts:
            raise ContextExists(f"session {self.id!r} has a context {id!r} already")
        if len(self._contexts) >= self._around.settings.max_contexts:
            raise AtCapacity(f"{len(self._contexts)} contexts are there: delete some first")
        context = self._add_context(id, language, private)
        self.save()
        try:
            await context.kernel()
        except BaseException:
            self._contexts.pop(id, None)
            self.save()
            await context.close()
            raise
        return context

    def context(self, id: str) -> Context:
        """Raises ContextNotFound."""
        if id not in self._contexts:
            raise ContextNotFound(
                f"session {self.id!r} has no context {id!r}: list or create contexts"
            )
        return self._contexts[id]

    def contexts(self) -> list[Context]:
        return list(self._contexts.values())

    async def delete_context(self, id: str) -> None:
        context = self.context(id)
        del self._contexts[id]
        self.save()
        await context.close()

    async def git_checkout(self, request: GitCheckout) -> Checkout:
        self._touch()
        box = await self._get_box()
        checkout = await git.checkout(
            box,
            request,
            env=dict(self.environment.variables),
            cwd=await box.directory(self.environment.cwd),
            resolve=self.resolve,
        )
        self.deeds.note("checkout", path=checkout.directory, commit=checkout.commit)
        return checkout

    def during(self) -> AbstractContextManager[None]:
        """While somebody is attached to what runs here, the sandbox is not idle."""
        return self._around.activity.during()

    async def box(self) -> Box:
        """Where it runs; a paused sandbox goes on."""
        return await self._get_box()

    def resolve(self, path: str) -> str:
        """An absolute path as the code sees it; `~` is the home."""
        paths = self._around.box_paths
        if path == "~" or path.startswith("~/"):
            path = paths.home + path[1:]
        elif not path.startswith("/"):
            path = os.path.join(self.environment.cwd, path)
        return paths.actual(path)

    def attach(self, box: Box) -> None:
        """A box has been started: publish the environment in it."""
        if self._page is not None:
            self.environment.retract(self._page)
        self._page = self.environment.publish(box.host_run / "env" / self.id)

    async def take_up(self, box: Box, live: dict[str, BoxProcess]) -> None:
        """What an earlier service left running of this session; it is taken out of `live`."""
        self.attach(box)
        await self.terminals.restore(box, live)
        heir = Succession(self.id, self.commands, self._contexts, self._around, self.tell)
        await heir.take_up(box, live)

    async def settled(self, until: float) -> None:
        """What was taken up has answered, or has had until then."""
        for context in self._contexts.values():
            await context.settled(until)

    async def leave(self) -> None:
        """Let go of everything, for the next service to take up."""
        if self._again:
            self._again.cancel()
            self.save()
        self._deleted = True
        self._unsubscribe()
        self.commands.leave()
        self.terminals.close()
        for context in self._contexts.values():
            await context.leave()
        if self._page is not None:
            self.environment.retract(self._page)
            self._page = None

    async def close(self, reason: CellshellError | None = None) -> None:
        """End everything that runs here at once; callers get `reason`."""
        reason = reason or SessionDeleted(f"session {self.id!r} was deleted")
        self._deleted = True
        self._unsubscribe()
        self.deeds.forget()
        contexts, self._contexts = list(self._contexts.values()), {}
        await asyncio.gather(
            self.commands.close(reason),
            self.terminals.end(),
            *(context.close(reason) for context in contexts),
        )
        if self._page is not None:
            self.environment.retract(self._page)
            self._page = None

    def restore(self, contexts: Sequence[Mapping[str, Any]]) -> None:
        """The contexts an earlier service had; kernels that are gone start at the next use."""
        for document in contexts:
            with suppress(LanguageUnknown, LanguageUnavailable):
                language = self._around.languages.find(document["language"])
                private = Overlay(document["env"], document["cwd"])
                created_at = document.get("created_at")
                kernel = document.get("kernel")
                record = KernelRecord(**kernel) if kernel else None
                self._add_context(document["id"], language, private, created_at, record)

    def tell(self, code: str, message: str) -> None:
        """A notice for the next result."""
        self._notices.append(Notice(code=code, message=message))

    def _take_notices(self) -> list[Notice]:
        notices, self._notices = self._notices, []
        return notices

    def _submit(self, execution: Execution, submit: Callable[[], None]) -> None:
        try:
            if self._deleted:
                raise SessionDeleted(f"session {self.id!r} was deleted")
            submit()
        except (QueueFull, SessionDeleted):
            self._around.executions.abandon(execution)
            raise

    def _context_for(self, request: RunCode) -> Context:
        if request.context is not None:
            if request.language is not None:
                raise LanguageAndContext(
                    "expected `language` or `context`, got both: a context has its language"
                )
            return self.context(request.context)
        name = request.language or "python"
        for context in self._contexts.values():
            if context.is_default_of(name):
                return context
        language = self._around.languages.find(name)
        if language.name not in self._contexts:
            self._add_context(language.name, language, Overlay())
            self.save()
        return self._contexts[language.name]

    def _add_context(
        self,
        id: str,
        language: KernelLanguage,
        private: Overlay,
        created_at: str | None = None,
        record: KernelRecord | None = None,
    ) -> Context:
        context = self._contexts[id] = Context(
            id,
            self.id,
            language,
            self.environment,
            get_box=self._get_box,
            paths=self._around.kernel_paths,
            settings=self._around.settings,
            zmq_context=self._around.zmq_context,
            private=private,
            take_notices=self._take_notices,
            hints=self._around.hints,
            executions=self._around.executions,
            on_start=self.save,
            spares=self._around.spares,
            created_at=created_at,
            record=record,
        )
        return context

    def _free_id(self, language: str) -> str:
        taken = 1
        while f"{language}-{taken}" in self._contexts:
            taken += 1
        return f"{language}-{taken}"

    async def _call_directory(self, cwd: str | None) -> str | None:
        if cwd is None:
            return None
        path = self.resolve(cwd).rstrip("/") or "/"
        box = await self._get_box()
        if await box.directory(path) != path:
            raise InvalidCwd(
                f"expected `cwd` to be a directory that can be entered, got {cwd!r}: make it first"
            )
        return path

    def _check_fits(self, changes: Mapping[str, str | None]) -> None:
        if not self.environment.fits(changes):
            raise InvalidRequest("the environment would hold more than 1 MiB: store data in files")

    def _touch(self) -> None:
        if self._deleted:
            raise SessionDeleted(f"session {self.id!r} was deleted")
        self.last_activity = now()

    def save(self) -> None:
        """What brings the session back after the service was restarted."""
        environment = self.environment
        own = {name: environment.variables.get(name) for name in sorted(environment.own)}
        contexts = [context.document() for context in self._contexts.values()]
        document = {
            "cwd": environment.cwd,
            "own": own,
            "created_at": self.created_at,
            "of_frontend": self.of_frontend,
            "contexts": contexts,
        }
        self._again = None
        try:
            self._around.save(self.id, document)
        except DiskFull as error:
            # What runs goes on. Who asks for a change is refused before it is made.
            log.warning("session %r will be written down later: %s", self.id, error.message)
            self._again = asyncio.get_running_loop().call_later(SAVED_AGAIN_AFTER, self._save_again)

    def _save_again(self) -> None:
        if not self._deleted:
            self.save()
