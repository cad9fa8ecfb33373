"""What a sandbox asked the way out for, and what was decided."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Literal

from interpreter.events import now
from interpreter.models import Reply

KEPT = 1000
"""Decisions kept of a sandbox, the newest."""
_LONGEST_METHOD = 32


class NetworkDecision(Reply):
    """One request to the way out of a sandbox. Nothing of its path, headers or body is kept."""

    number: int
    """Counts from 1, and again from 1 after a restart of the service."""
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
    """Bytes that the sandbox received; null while it goes on."""
    bytes_out: int | None = None
    """Bytes that were sent for the sandbox; null while it goes on."""


class NetworkLog:
    """The newest decisions about one sandbox, in memory."""

    def __init__(self) -> None:
        self._decisions: deque[NetworkDecision] = deque(maxlen=KEPT)
        self.last = 0
        """Number of the newest."""

    def note(
        self,
        method: str,
        host: str,
        port: int,
        decision: Literal["allowed", "denied"],
        reason: str,
        address: str | None = None,
    ) -> NetworkDecision:
        """The entry, whose byte counts are for the caller to fill in."""
        self.last += 1
        noted = NetworkDecision(
            number=self.last,
            time=now(),
            method=method[:_LONGEST_METHOD],
            host=host,
            port=port,
            decision=decision,
            reason=reason,
            address=address,
        )
        self._decisions.append(noted)
        return noted

    def after(self, number: int, limit: int = KEPT) -> list[NetworkDecision]:
        """The first `limit` that came after `number`, oldest first.

        A number beyond the newest is of an earlier service: who knows it has seen none of these.
        """
        known = number if number <= self.last else 0
        later = (each for each in self._decisions if each.number > known)
        return list(islice(later, limit))
