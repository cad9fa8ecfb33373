"""Where the service may listen."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from interpreter.errors import CellshellError, InvalidRequest
from interpreter.models import Isolation
from interpreter.settings import Settings


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the address, which does not take connections yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bound(socket.socket(family, kind, protocol), address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CellshellError(
            f"expected to listen on {settings.host} port {settings.port}, got: {reason}; choose "
            "others with --host and --port"
        ) from None


def _bound(listener: socket.socket, address: Any) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def refuse_exposure(settings: Settings, listener: socket.socket) -> None:
    """Without a token the service is for this machine alone."""
    if not is_loopback(listener) and settings.token is None:
        raise InvalidRequest(
            f"expected a token to listen on {settings.host}, where others can reach the service: "
            "give --token (or CELLSHELL_TOKEN), or --host 127.0.0.1"
        )


def refuse_unconfined(settings: Settings, listener: socket.socket, isolation: Isolation) -> None:
    """Without walls, others get in only when the operator says so in so many words."""
    if isolation.tier == "none" and settings.isolation != "none" and not is_loopback(listener):
        raise InvalidRequest(
            f"expected isolation to listen on {settings.host}, but there is none here "
            f"({isolation.reason}): install what it needs (see `cellshell doctor`), use --host "
            "127.0.0.1, or say --isolation none if whoever has the token may use this account"
        )
