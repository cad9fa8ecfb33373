"""What a caller would otherwise have to find out: why the network did not answer."""

from __future__ import annotations

import re

from interpreter.models import Notice

LOOKED_AT = 64 * 1024
_NO_NETWORK = re.compile(
    "Could not resolve host|Temporary failure in name resolution|Name or service not known|"
    "Network is unreachable|getaddrinfo (?:EAI_AGAIN|ENOTFOUND)|failed to lookup address"
)


def no_network(text: str) -> list[Notice]:
    """A notice when what a program said looks like a sandbox without network."""
    if not _NO_NETWORK.search(text[-LOOKED_AT:]):
        return []
    message = 'this sandbox has no network (its policy is `none`): make one with `network: "open"`'
    return [Notice(code="network_none", message=message)]
