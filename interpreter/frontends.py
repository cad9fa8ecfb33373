"""Finding and starting what Jupyter frontends call kernels."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interpreter.errors import KernelNotFound
from interpreter.known import RUNNING, SHELL, Known, KnownContext, KnownShell
from interpreter.models import CreateContext, CreateSandbox, CreateSession

if TYPE_CHECKING:
    from interpreter.interpreter import Interpreter
    from interpreter.sandboxes import Sandbox
    from interpreter.sessions import Session

IN = "--"
"""Between the name of a kernelspec and the sandbox that it is wanted in."""


class Frontends:
    """Of one service."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def all(self) -> Iterator[Known]:
        for sandbox in self._interpreter.sandboxes():
            for session in sandbox.sessions():
                yield KnownShell(sandbox, session)
                for context in session.contexts():
                    yield KnownContext(sandbox, session, context)

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

        Who attaches to what a frontend has started shares it: no frontend's end is its end then.

        Raises KernelNotFound, LanguageUnknown, LanguageUnavailable, AtCapacity, NotReady.
        """
        if name.startswith(RUNNING):
            for known in self.all():
                if known.running_name == name:
                    self._share(known.session)
                    return known
            raise KernelNotFound(f"no context goes by {name!r:.50} any more")
        kernel, _, place = name.partition(IN)
        if kernel != SHELL:
            kernel = self._interpreter.languages_here.find(kernel).name
        sandbox = await self._sandbox(place)
        session = await sandbox.create_session(CreateSession(id=f"jupyter-{secrets.token_hex(4)}"))
        session.of_frontend = True
        if kernel == SHELL:
            session.save()
            return KnownShell(sandbox, session)
        try:
            request = CreateContext(language=kernel, id=kernel)
            return KnownContext(sandbox, session, await session.create_context(request))
        except BaseException:
            await sandbox.delete_session(session.id)
            raise

    async def end(self, known: Known) -> None:
        """A frontend wants no more of it: what others have made stays, and all that is with it."""
        if known.session.of_frontend and known.may_end_session:
            await known.sandbox.delete_session(known.session.id)

    def _share(self, session: Session) -> None:
        if session.of_frontend:
            session.of_frontend = False
            session.save()

    async def _sandbox(self, place: str) -> Sandbox:
        if place:
            return self._interpreter.sandbox(place)
        home = self._interpreter.settings.jupyter_sandbox
        sandbox, _ = await self._interpreter.ensure_sandbox(home, CreateSandbox())
        return sandbox
