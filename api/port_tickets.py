"""Links to ports without the token: what a page sees in its own address opens its port alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from pydantic import SecretStr

from interpreter.ports_domain import PortsDomain

ENTRANCE = "/.cellshell/open/"
"""Where a ticket is handed in, at a port with a host name of its own."""
_OPENS = re.compile(r"/v1/sandboxes/([^/]+)/ports/(\d{1,5})/open/([0-9a-f]{32})(?:/.*)?", re.DOTALL)


class Tickets:
    """Derived from the token, so that links outlive the service; without one, from chance."""

    def __init__(self, token: SecretStr | None, domain: PortsDomain | None = None) -> None:
        self.domain = domain
        given = token.get_secret_value().encode() if token else secrets.token_bytes(32)
        self._key = hashlib.sha256(b"cellshell port ticket\0" + given).digest()

    def of(self, sandbox: str, port: int) -> str:
        message = f"{sandbox}/{port}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    def link(self, sandbox: str, port: int, root: str = "") -> str:
        """Where a browser reaches the port; `root` is in front of our own paths."""
        if self.domain is None:
            return root + self.path(sandbox, port)
        return f"{self.domain.origin(sandbox, port)}{ENTRANCE}{self.of(sandbox, port)}/"

    def path(self, sandbox: str, port: int) -> str:
        """Its place below our own paths; what follows is the server's own path."""
        return f"/v1/sandboxes/{sandbox}/ports/{port}/open/{self.of(sandbox, port)}/"

    def open(self, path: str) -> bool:
        """Whether the address itself is the permission to call it."""
        parts = _OPENS.fullmatch(path)
        if parts is None:
            return False
        return hmac.compare_digest(self.of(parts[1], int(parts[2])), parts[3])
