"""What all sandboxes of one service share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import zmq

from interpreter.blanks import Blanks
from interpreter.fork_server import ForkServer
from interpreter.limits import Enforcement
from interpreter.models import Isolation
from interpreter.registry import Registry
from interpreter.settings import Settings
from interpreter.spares import Spares
from kernels.specs import Languages


@dataclass(frozen=True)
class Resources:
    settings: Settings
    registry: Registry
    blanks: Blanks
    isolation: Isolation
    enforcement: Enforcement
    forks: ForkServer | None
    spares: Spares
    languages: Languages
    zmq_context: zmq.Context[Any]
    delete: Callable[[str], Awaitable[None]]
    """Deletes a sandbox: for one that nobody uses any more."""
