"""Contexts as Jupyter frontends know them: kernels, each with an id of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from interpreter.errors import KernelNotFound
from interpreter.models import CreateContext, CreateSandbox, CreateSession

if TYPE_CHECKING:
    from interpreter.contexts import Context
    from interpreter.interpreter import Interpreter
    from interpreter.sandboxes import Sandbox
    from interpreter.sessions import Session

NAMESPACE = UUID("6f1c6a52-8f0b-4d0e-9a55-6a1e3a1f7c11")
RUNNING = "running-"
"""Begins the name of a kernelspec that is a context there already."""
IN = "--"
"""Between the name of a kernelspec and the sandbox that it is wanted in."""


@dataclass(frozen=True)
class Known:
    """A context, by what frontends know it."""

    sandbox: Sandbox
    session: Session
    context: Context

    @property
    def id(self) -> str:
        """The same after the service was started again; another for a context made anew."""
        context = self.context
        return str(uuid5(NAMESPACE, f"{self.name}/{context.created_at}"))

    @property
    def name(self) -> str:
        return f"{self.sandbox.id}/{self.session.id}/{self.context.id}"

    @property
    def running_name(self) -> str:
        return RUNNING + self.id[:8]


class Frontends:
    """Finds and starts contexts for frontends."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def all(self) -> Iterator[Known]:
        for sandbox in self._interpreter.sandboxes():
            for session in sandbox.sessions():
                for context in session.contexts():
                    yield Known(sandbox, session, context)

    def find(self, id: str) -> Known:
        """Raises KernelNotFound."""
        for known in self.all():
            if known.id == id:
                return known
        raise KernelNotFound(
            f"there is no kernel {id!r:.50}: its context was deleted, or never was"
        )

    async def start(self, name: str) -> Known:
        """By the name of a kernelspec: a context that is there, or one in a session of its own.

        Raises KernelNotFound, LanguageUnknown, LanguageUnavailable, AtCapacity, NotReady.
        """
        if name.startswith(RUNNING):
            for known in self.all():
                if known.running_name == name:
                    return known
            raise KernelNotFound(f"no context goes by {name!r:.50} any more")
        kernel, _, place = name.partition(IN)
        language = self._interpreter.languages_here.find(kernel)
        sandbox = await self._sandbox(place)
        session = await sandbox.create_session(CreateSession(id=f"jupyter-{secrets.token_hex(4)}"))
        session.of_frontend = True
        try:
            request = CreateContext(language=language.name, id=language.name)
            return Known(sandbox, session, await session.create_context(request))
        except BaseException:
            await sandbox.delete_session(session.id)
            raise

    async def end(self, known: Known) -> None:
        """A frontend wants no more of it: what others have made stays."""
        if known.session.of_frontend:
            await known.sandbox.delete_session(known.session.id)

    async def _sandbox(self, place: str) -> Sandbox:
        if place:
            return self._interpreter.sandbox(place)
        home = self._interpreter.settings.jupyter_sandbox
        sandbox, _ = await self._interpreter.ensure_sandbox(home, CreateSandbox())
        return sandbox
