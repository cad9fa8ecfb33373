"""What a caller would otherwise have to find out: why the network did not answer."""

from __future__ import annotations

import re
from collections.abc import Callable

from interpreter.models import Notice
from interpreter.network_log import NetworkLog
from interpreter.strikes import Strikes

LOOKED_AT = 64 * 1024
NAMED = 5
_NO_NETWORK = re.compile(
    "Could not resolve host|Temporary failure in name resolution|Name or service not known|"
    "Network is unreachable|getaddrinfo (?:EAI_AGAIN|ENOTFOUND)|failed to lookup address"
)


class Hints:
    """Of one sandbox; `log` is that of its way out, None where it has no network at all."""

    def __init__(self, log: NetworkLog | None, strikes: Strikes) -> None:
        self._log = log
        self._strikes = strikes

    def mark(self) -> int:
        """What to remember when something starts, for `notices` at its end."""
        return self._log.last if self._log else 0

    def notices(self, mark: int, said: Callable[[], str], *, failed: bool) -> list[Notice]:
        """What to tell of a run: `said` is what it wrote of its troubles."""
        struck = self._strikes.notices() if failed else []
        if self._log is None:
            return struck + _no_network(said())
        return struck + _denied(self._log, mark)


def _no_network(text: str) -> list[Notice]:
    """A notice when what a program said looks like a sandbox without network."""
    if not _NO_NETWORK.search(text[-LOOKED_AT:]):
        return []
    message = 'this sandbox has no network (its policy is `none`): make one with `network: "open"`'
    return [Notice(code="network_none", message=message)]


def _denied(log: NetworkLog, mark: int) -> list[Notice]:
    """Of all that was denied since; who asked for it in the sandbox is not known."""
    reasons = {
        f"{each.host}:{each.port}": each.reason
        for each in log.after(mark)
        if each.decision == "denied"
    }
    if not reasons:
        return []
    named = [f"{host} ({reason})" for host, reason in list(reasons.items())[:NAMED]]
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    message = (
        f"while this ran, the network policy of the sandbox denied {', '.join(named)}{more}: "
        "hosts are allowed when the sandbox is made, in `network.allow`"
    )
    return [Notice(code="network_denied", message=message)]
