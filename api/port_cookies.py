"""Cookies of a port that has an origin of its own: ours opens it, the others are its server's."""

from __future__ import annotations

from collections.abc import Iterable

PLAIN, SECURE = "cellshell-port", "__Host-cellshell-port"
"""Over https nobody but the host itself can set the second one, no sibling in the domain either."""
OURS = frozenset({PLAIN, SECURE})


def entrance(ticket: str, *, secure: bool) -> str:
    """The `Set-Cookie` that opens the port to a browser until it is closed.

    Lax: a link from elsewhere shows the page; requests of other sites come without it.
    """
    name, more = (SECURE, "; Secure") if secure else (PLAIN, "")
    return f"{name}={ticket}; Path=/; HttpOnly; SameSite=Lax{more}"


def tickets(values: Iterable[str], *, secure: bool) -> list[str]:
    """What `Cookie` headers hold under our name."""
    wanted = SECURE if secure else PLAIN
    return [value for name, value in _pairs(values) if name == wanted]


def without_ours(value: bytes) -> bytes:
    """A `Cookie` header for the server; empty: it has nothing to tell."""
    kept = [pair for pair in value.split(b";") if _name(pair) not in OURS]
    return b";".join(kept).strip()


def host_only(value: bytes) -> bytes | None:
    """A server's `Set-Cookie`, for its own host alone; None: it is one of our name."""
    first, *attributes = value.split(b";")
    if _name(first) in OURS:
        return None
    return b";".join([first, *(each for each in attributes if _name(each).lower() != "domain")])


def _pairs(values: Iterable[str]) -> list[tuple[str, str]]:
    parts = (pair.partition("=") for value in values for pair in value.split(";"))
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _name(pair: bytes) -> str:
    return pair.partition(b"=")[0].strip().decode("latin-1")
