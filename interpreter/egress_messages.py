"""What passes through the egress proxy: targets, and heads for the next hop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import h11

from interpreter.egress_dial import Destination, Unreachable

if TYPE_CHECKING:
    from interpreter.egress_dial import Line

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::(\d{1,5}))?")
_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]*)([^#]*)")
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
Headers = list[tuple[bytes, bytes]]
Message = h11.Request | h11.Response | h11.InformationalResponse


class Refused(Exception):
    """A request that gets an answer of ours: a status and a sentence."""

    def __init__(self, status: int, sentence: str, deny: str | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.deny = deny


def asked(request: h11.Request) -> tuple[Destination, str | None]:
    """Where a request leads, and what to ask for there; nothing for a tunnel."""
    target = request.target.decode("ascii")
    if request.method == b"CONNECT":
        return _tunnel_target(target), None
    return _forward_target(target)


def _tunnel_target(target: str) -> Destination:
    wanted = _destination(target, None)
    if wanted is None:
        raise Refused(400, f"expected CONNECT host:port, got {target[:200]}")
    return wanted


def _forward_target(target: str) -> tuple[Destination, str]:
    parts = _ABSOLUTE.fullmatch(target)
    wanted = _destination(parts[1], 80) if parts else None
    if parts is None or wanted is None:
        raise Refused(
            400,
            "this is a proxy: expected http://host/path, or CONNECT host:port for anything else, "
            f"got {target[:200]}",
        )
    return wanted, parts[2] if parts[2].startswith("/") else "/" + parts[2]


def _destination(authority: str, default_port: int | None) -> Destination | None:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return None
    port = int(parts[3]) if parts[3] else default_port
    host = (parts[1] or parts[2]).lower().removesuffix(".")
    return Destination(host, port) if host and port and port < 65536 else None


def _end_to_end(message: Message) -> Headers:
    """Without what is said to the next hop only; the framing is ours to choose."""
    drop = set(_HOP_BY_HOP)
    for name, value in message.headers:
        if name == b"connection":
            drop.update(option.strip().lower() for option in value.split(b","))
        elif name == b"transfer-encoding":
            drop.add(b"content-length")
    return [
        (name, value) for name, value in message.headers.raw_items() if name.lower() not in drop
    ]


def outgoing(request: h11.Request, wanted: Destination, target: str, line: Line) -> h11.Request:
    """What the server, or the upstream proxy, gets for the client's request."""
    headers = [pair for pair in _end_to_end(request) if pair[0].lower() != b"host"]
    headers.append((b"Connection", b"close"))
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    host = str(wanted).removesuffix(":80")
    if line.upstream is not None:
        target = f"http://{line.authority}{target}"
        headers += line.upstream.headers()
    headers.insert(0, (b"Host", host.encode()))
    return h11.Request(method=request.method, target=target.encode(), headers=headers)


def incoming(event: object) -> h11.Event:
    """What the client gets for an event of the server's."""
    match event:
        case h11.InformationalResponse():
            headers = _end_to_end(event)
            return h11.InformationalResponse(status_code=event.status_code, headers=headers)
        case h11.Response(status_code=407):
            raise Unreachable("the proxy on the way asks for credentials that the operator gives")
        case h11.Response():
            headers = [*_end_to_end(event), (b"Connection", b"close")]
            return h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        case h11.Data():
            return event
        case h11.EndOfMessage():
            return h11.EndOfMessage()
        case _:
            raise h11.RemoteProtocolError("it closed the connection")
