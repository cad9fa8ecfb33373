"""What the sessions of one sandbox have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from interpreter.activity import Activity
from interpreter.box import Box
from interpreter.executions import Executions
from interpreter.hints import Hints
from interpreter.settings import Settings
from interpreter.spares import Spares
from interpreter.walls import BoxPaths
from interpreter.worker import Worker
from kernels.specs import KernelPaths, Languages


@dataclass(frozen=True)
class Surroundings:
    sandbox: str
    hints: Hints
    settings: Settings
    executions: Executions
    get_box: Callable[[], Awaitable[Box]]
    activity: Activity
    box_paths: BoxPaths
    kernel_paths: Callable[[Box], KernelPaths]
    languages: Languages
    zmq_context: zmq.Context[Any]
    spares: Spares
    worker: Worker
    records: Path
    """A directory of the service's own, for what the next one has to know of shells."""
    save: Callable[[str, dict[str, Any]], None]
    """Raises DiskFull, as does:"""
    check: Callable[[], None]
    """Whether a change could be written down."""
