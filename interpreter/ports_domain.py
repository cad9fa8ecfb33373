"""Host names of ports: an origin of its own for every port of every sandbox."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

LONGEST_LABEL = 63
_DOMAIN = re.compile(
    r"(?:(https?)://)?((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]{0,61}[a-z0-9])"
    r"(?::(\d{1,5}))?/?",
    re.ASCII,
)
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_LABEL = re.compile(r"([1-9]\d{0,4})(h?)-([a-z0-9-]+)", re.ASCII)


@dataclass(frozen=True)
class PortsDomain:
    """The domain below which every port has a name, `8000-user-123.ports.example.org`."""

    scheme: str
    host: str
    port: str = ""
    """Empty: the scheme's own."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError. Without a scheme it is https, as an operator's proxy serves it."""
        found = _DOMAIN.fullmatch(text.strip().lower())
        if found is None or len(found[2]) > 180 or int(found[3] or 1) not in range(1, 65536):
            raise ValueError(
                "expected a domain such as 'ports.example.org', 'https://ports.example.org:8443' "
                f"or 'http://ports.localhost:8000', got {text!r:.100}"
            )
        return cls(found[1] or "https", found[2], found[3] or "")

    def origin(self, sandbox: str, port: int) -> str:
        """What pages of that port have as their origin."""
        end = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{_label(sandbox, port)}.{self.host}{end}"

    def label(self, host: str) -> str | None:
        """The first part of a name below this domain, as a `Host` header has it; None: it is
        none."""
        name = host.strip().lower().rpartition("@")[2].partition(":")[0].rstrip(".")
        return name.removesuffix(f".{self.host}") if name.endswith(f".{self.host}") else None

    def find(self, label: str, sandboxes: Iterable[str]) -> tuple[str, int] | None:
        """The sandbox and the port that a label stands for."""
        found = _LABEL.fullmatch(label)
        if found is None or int(found[1]) > 65535:
            return None
        port, rest = int(found[1]), found[3]
        ids = sandboxes if found[2] else (id for id in sandboxes if id == rest)
        return next(((id, port) for id in ids if _label(id, port) == label), None)


def _label(sandbox: str, port: int) -> str:
    """Ids that no host name can hold (long, dotted, in capitals) are named by a digest."""
    plain = f"{port}-{sandbox}"
    if _PLAIN.fullmatch(sandbox) and len(plain) <= LONGEST_LABEL:
        return plain
    return f"{port}h-{hashlib.sha256(sandbox.encode()).hexdigest()[:32]}"
