"""What passes between a caller and a server in a sandbox, whose bytes are never content of ours.

Inwards the caller's credentials are left out; outwards whatever would act on our origin. A page is
in a sandbox of the browser's too, with an origin of its own that no address of ours accepts; where
ports have host names of their own, that is an origin with storage and cookies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from api.port_cookies import host_only, without_ours

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
OURS = frozenset(
    b"authorization cookie host origin referer expect forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-port x-forwarded-prefix x-forwarded-proto x-real-ip".split()
)
ACTIVE = frozenset(
    b"alt-svc clear-site-data date expect-ct nel origin-agent-cluster public-key-pins report-to "
    b"reporting-endpoints server service-worker-allowed set-cookie set-cookie2 "
    b"strict-transport-security www-authenticate x-content-type-options".split()
)
"""What browsers keep for a whole origin, and what this service says itself."""
PASSIVE: Headers = [
    (b"content-security-policy", b"sandbox allow-scripts allow-forms"),
    (b"x-content-type-options", b"nosniff"),
]
OF_ITS_OWN: Headers = [
    (
        b"content-security-policy",
        b"sandbox allow-same-origin allow-scripts allow-forms allow-popups allow-modals "
        b"allow-downloads",
    ),
    (b"x-content-type-options", b"nosniff"),
]
"""Of a port with an origin that is nobody else's."""
PREFLIGHT = (b"access-control-request-method", b"access-control-request-headers")


@dataclass(frozen=True)
class Way:
    """From an address of ours to one of the server's."""

    prefix: str
    """Our path of the server's `/`, without the last slash."""
    port: int
    target: str
    """Path and query for the server."""
    origin: str = ""
    """The origin that the port has for itself; empty: it is below an address of ours."""

    @property
    def host(self) -> str:
        """What servers for development expect to be called."""
        return f"localhost:{self.port}"

    @classmethod
    def of(cls, connection: HTTPConnection, port: int, segments: int, *, origin: str = "") -> Way:
        """`segments` are those of our own part of the path."""
        raw: bytes = connection.scope.get("raw_path") or connection.scope["path"].encode()
        parts = raw.split(b"/", segments + 1)
        prefix = connection.scope.get("root_path", "") + b"/".join(parts[: segments + 1]).decode()
        target = "/" + (parts[segments + 1] if len(parts) > segments + 1 else b"").decode("latin-1")
        query: bytes = connection.scope["query_string"]
        target = f"{target}?{query.decode('latin-1')}" if query else target
        return cls(prefix, port, target, origin)


def inwards(connection: HTTPConnection, way: Way) -> Headers:
    """What the server is told of a request."""
    given: Headers = list(connection.scope["headers"])
    left_out = HOP_BY_HOP | OURS | _options(given)
    headers = [(name, value) for name, value in given if name not in left_out]
    headers.append((b"host", way.host.encode()))
    if any(name == b"origin" for name, _ in given):
        # Servers compare it with their Host; that foreign pages do not call was seen to already.
        headers.append((b"origin", f"http://{way.host}".encode()))
    if way.origin:
        headers += _cookies(given)
    forwarded = {
        "x-forwarded-host": connection.headers.get("host", ""),
        "x-forwarded-proto": _scheme(connection, way),
        "x-forwarded-prefix": way.prefix,
    }
    return headers + [(k.encode(), v.encode("latin-1")) for k, v in forwarded.items() if v]


def outwards(headers: Headers, way: Way, *, opaque: bool) -> Headers:
    """What the caller is told of an answer; `opaque` is a page of this very port."""
    left_out = HOP_BY_HOP | ACTIVE | _options(headers)
    if opaque:
        left_out |= {b"access-control-allow-origin"}
    kept = [
        (name, _location(value, way) if name == b"location" else value)
        for name, value in headers
        if name not in left_out
    ]
    if way.origin:
        set_cookies = (host_only(value) for name, value in headers if name == b"set-cookie")
        return kept + [(b"set-cookie", value) for value in set_cookies if value] + OF_ITS_OWN
    return kept + PASSIVE + ([(b"access-control-allow-origin", b"null")] if opaque else [])


def preflight(headers: Headers) -> Headers:
    """The answer to a page of this port that asks whether it may call its own server."""
    asked = dict(headers)
    return [
        (b"access-control-allow-origin", b"null"),
        (b"access-control-allow-methods", asked.get(PREFLIGHT[0], b"GET")),
        (b"access-control-allow-headers", asked.get(PREFLIGHT[1], b"")),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
    ]


def _cookies(given: Headers) -> Headers:
    values = (without_ours(value) for name, value in given if name == b"cookie")
    return [(b"cookie", value) for value in values if value]


def _scheme(connection: HTTPConnection, way: Way) -> str:
    if way.origin:
        return way.origin.partition(":")[0]
    scheme = connection.url.scheme
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)


def _options(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Those that `Connection` names are for the next hop only."""
    listed = (value for name, value in headers if name == b"connection")
    return frozenset(each.strip().lower() for value in listed for each in value.split(b","))


def _location(value: bytes, way: Way) -> bytes:
    """A redirect to a path of the server's own stays with the server."""
    for start in (f"http://{way.host}", f"http://127.0.0.1:{way.port}"):
        if value.lower().startswith(start.encode()):
            value = value[len(start) :] or b"/"
    if value.startswith(b"/") and not value.startswith((b"//", b"/\\")):
        return way.prefix.encode() + value
    return value
