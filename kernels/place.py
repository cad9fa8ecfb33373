"""What kernels need of a place to run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class PlacedProcess(Protocol):
    """A process in a place."""

    @property
    def pid(self) -> int:
        """Its id, as the place counts."""

    async def wait(self) -> int:
        """The exit code; negative: the number of the signal that ended it. For any number of
        callers, before and after the end."""

    def send_signal(self, signum: int) -> None:
        """Raises ProcessLookupError when it is over."""


class Place(Protocol):
    """Where kernels run: a box, or this machine itself."""

    @property
    def sockets(self) -> Path:
        """A directory for sockets and connection files, as the service sees it. What is in the
        place may write there too."""

    @property
    def inside_sockets(self) -> str:
        """The same directory, as the place sees it."""

    @property
    def uid(self) -> int | None:
        """The user kernels run as, where it is not the service's own."""

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str
    ) -> PlacedProcess:
        """Start a process, leader of a process group of its own. OSError when it cannot."""
