"""What a sandbox asked the way out for, and what was decided."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from interpreter.events import now
from interpreter.models import Reply

KEPT = 1000
"""Decisions kept of a sandbox, the newest."""
_LINES = 2 * KEPT
"""Of a file: as many as the decisions that are kept have at most."""
_LONGEST_METHOD = 32


class NetworkDecision(Reply):
    """One request to the way out of a sandbox. Nothing of its path, headers or body is kept."""

    number: int
    """Counts from 1, as long as there is the sandbox."""
    time: str
    """When it was decided."""
    method: str
    """`CONNECT` for a tunnel (https, ssh), else the HTTP method."""
    host: str
    """Name or address that was asked for."""
    port: int
    decision: Literal["allowed", "denied"]
    """Of the policy, and of the rule that only public addresses are reached."""
    reason: str
    """`open`, `listed`; `host_not_listed`, `port_not_listed`, `address_not_public`; or `failed`:
    it was allowed, and did not resolve, take the connection or answer."""
    address: str | None = None
    """The address it led to."""
    bytes_in: int | None = None
    """Bytes that the sandbox received; null while it goes on, or when the service ended first."""
    bytes_out: int | None = None
    """Bytes that were sent for the sandbox; null as `bytes_in` is."""


class NetworkLog:
    """The newest decisions about one sandbox, in memory and, with a `path`, on disk.

    The file has a line for each decision and another one when its bytes are known; a full file
    becomes the second, whose lines count before it. What the disk does not take is in memory alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lines = 0
        self._loaded: dict[int, NetworkDecision] | None = None

    @property
    def last(self) -> int:
        """Number of the newest; 0: there is none."""
        return next(reversed(self._decisions), 0)

    def note(
        self,
        method: str,
        host: str,
        port: int,
        decision: Literal["allowed", "denied"],
        reason: str,
        address: str | None = None,
    ) -> NetworkDecision:
        """The entry, whose byte counts are for the caller to fill in, and then to `keep`."""
        noted = NetworkDecision(
            number=self.last + 1,
            time=now(),
            method=method[:_LONGEST_METHOD],
            host=host,
            port=port,
            decision=decision,
            reason=reason,
            address=address,
        )
        self._decisions[noted.number] = noted
        if len(self._decisions) > KEPT:
            del self._decisions[next(iter(self._decisions))]
        self.keep(noted)
        return noted

    def keep(self, noted: NetworkDecision) -> None:
        """Write an entry down as it is now. Never raises: the way out works on a full disk too."""
        if self._path is None:
            return
        with suppress(OSError):
            if self._lines >= _LINES:
                self._path.replace(_earlier(self._path))
                self._lines = 0
            _append(self._path, noted.model_dump_json().encode() + b"\n")
            self._lines += 1

    def after(self, number: int, limit: int = KEPT) -> list[NetworkDecision]:
        """The first `limit` that came after `number`, oldest first.

        Who knows a number beyond the newest, which a power failure took, has seen none of these.
        """
        known = number if number <= self.last else 0
        later = (each for each in self._decisions.values() if each.number > known)
        return list(islice(later, limit))

    @property
    def _decisions(self) -> dict[int, NetworkDecision]:
        """By number, oldest first; read when they are first asked for."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> dict[int, NetworkDecision]:
        if self._path is None:
            return {}
        lines = _lines(self._path)
        self._lines = len(lines)
        found: dict[int, NetworkDecision] = {}
        for line in [*_lines(_earlier(self._path)), *lines]:
            with suppress(ValidationError):
                noted = NetworkDecision.model_validate_json(line)
                found[noted.number] = noted
        return {number: found[number] for number in sorted(found)[-KEPT:]}


def _earlier(path: Path) -> Path:
    return path.with_suffix(".earlier")


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []


def _append(path: Path, line: bytes) -> None:
    """Raises OSError, with nothing written. A line that a crash has torn is ended first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.pwrite(fd, line, size) < len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
