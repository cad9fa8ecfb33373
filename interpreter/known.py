"""Contexts and shells as Jupyter frontends know them: kernels, each with an id of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from interpreter.context_frontend import ContextFrontend
from interpreter.frontend import Frontend, Shutdown
from interpreter.shell_frontend import ShellFrontend

if TYPE_CHECKING:
    from interpreter.contexts import Context
    from interpreter.sandboxes import Sandbox
    from interpreter.sessions import Session

NAMESPACE = UUID("6f1c6a52-8f0b-4d0e-9a55-6a1e3a1f7c11")
RUNNING = "running-"
"""Begins the name of a kernelspec that is there already."""
SHELL = "bash"
SHELL_NAME = "$"


@dataclass(frozen=True)
class Known(ABC):
    """What runs cells, by what frontends know it: a kernel."""

    sandbox: Sandbox
    session: Session

    @property
    def id(self) -> str:
        """The same after the service was started again; another for a context made anew."""
        return str(uuid5(NAMESPACE, f"{self.name}/{self._since}"))

    @property
    def name(self) -> str:
        return f"{self.sandbox.id}/{self.session.id}/{self._own_name}"

    @property
    def title(self) -> str:
        return self.name

    @property
    def running_name(self) -> str:
        return RUNNING + self.id[:8]

    @property
    @abstractmethod
    def _own_name(self) -> str: ...

    @property
    @abstractmethod
    def _since(self) -> str: ...

    @property
    @abstractmethod
    def kernelspec(self) -> str: ...

    @property
    @abstractmethod
    def language(self) -> str: ...

    @property
    @abstractmethod
    def state(self) -> str:
        """One of `starting`, `idle`, `busy`, `dead`."""

    @property
    @abstractmethod
    def last_activity(self) -> str: ...

    @property
    @abstractmethod
    def connections(self) -> int: ...

    @property
    @abstractmethod
    def may_end_session(self) -> bool:
        """Whether a session that a frontend has started is there for this alone."""

    @abstractmethod
    async def ready(self) -> None:
        """Raises NotReady."""

    @abstractmethod
    def attach(self, client: str, on_shutdown: Shutdown) -> Frontend: ...

    @abstractmethod
    async def interrupt(self) -> None: ...

    @abstractmethod
    async def restart(self) -> None: ...


@dataclass(frozen=True)
class KnownContext(Known):
    """A context."""

    context: Context

    @property
    def _own_name(self) -> str:
        return self.context.id

    @property
    def _since(self) -> str:
        return self.context.created_at

    @property
    def kernelspec(self) -> str:
        return self.context.language.kernel

    @property
    def language(self) -> str:
        return self.context.language.name

    @property
    def state(self) -> str:
        return self.context.info().state

    @property
    def last_activity(self) -> str:
        return self.context.last_activity

    @property
    def connections(self) -> int:
        return len(self.context.attachments)

    @property
    def may_end_session(self) -> bool:
        return list(self.session.contexts()) == [self.context]

    async def ready(self) -> None:
        await self.context.kernel()

    def attach(self, client: str, on_shutdown: Shutdown) -> Frontend:
        return ContextFrontend(self.session, self.context, client, on_shutdown)

    async def interrupt(self) -> None:
        await self.context.interrupt()

    async def restart(self) -> None:
        await self.context.restart()


class KnownShell(Known):
    """The shell of a session: a kernel for bash."""

    kernelspec = language = SHELL

    @property
    def title(self) -> str:
        return f"{self.name} (bash)"

    @property
    def _own_name(self) -> str:
        """No context is called that."""
        return SHELL_NAME

    @property
    def _since(self) -> str:
        return self.session.created_at

    @property
    def state(self) -> str:
        return "busy" if self.session.commands.lane.busy else "idle"

    @property
    def last_activity(self) -> str:
        return self.session.last_activity

    @property
    def connections(self) -> int:
        return len(self.session.commands.attachments)

    @property
    def may_end_session(self) -> bool:
        return not self.session.contexts()

    async def ready(self) -> None:
        await self.session.box()

    def attach(self, client: str, on_shutdown: Shutdown) -> Frontend:
        return ShellFrontend(self.session, client, on_shutdown)

    async def interrupt(self) -> None:
        self.session.commands.interrupt()

    async def restart(self) -> None:
        await self.session.commands.restart()
