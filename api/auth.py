"""Who may call: tokens, hosts and origins, before anything else looks at a request."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_plus, unquote_to_bytes

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.port_tickets import Tickets
from api.problems import respond
from interpreter.errors import (
    CellshellError,
    HeadersTooLarge,
    HostRefused,
    OriginRefused,
    Unauthorized,
)

OPEN = {"/health", "/api", "/tree"}
"""The last two are asked by Jupyter's frontends before they have a token, and tell nothing."""
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
SCHEMES = {"bearer", "token"}
MAX_HEAD_BYTES = 64 * 1024
UNAUTHORIZED = 4401
FORBIDDEN = 4403


class Guard:
    """ASGI middleware that lets through who may call, and takes tokens out of query strings."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: SecretStr | None,
        tickets: Tickets,
        allowed_origins: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.tickets = tickets
        self.token = token.get_secret_value().encode() if token else b""
        self.origins = {origin.rstrip("/").lower() for origin in allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        offered = take_tokens(scope)
        try:
            self.check(scope, offered)
        except CellshellError as error:
            await refuse(error, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def check(self, scope: Scope, offered: Sequence[bytes]) -> None:
        """Raise what speaks against a request; `offered` are the tokens of its query string."""
        headers = Headers(scope=scope)
        check_size(scope)
        if not self.token:
            _check_host(headers.getlist("host"))
        if self.tickets.open(scope["path"]):
            return
        if not self.token:
            self._check_origin(headers)
            return
        if self._matches(_tokens(headers)):
            return
        if _takes_links(scope) and self._matches(offered):
            self._check_origin(headers)
        elif scope["path"] not in OPEN:
            raise _unauthorized(bool(headers.get("authorization") or offered))

    def _matches(self, offered: Iterable[bytes]) -> bool:
        return any(hmac.compare_digest(self.token, token) for token in offered)

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        for origin in headers.getlist("origin"):
            known = origin.lower()
            if known in self.origins or known in (f"http://{host}", f"https://{host}"):
                continue
            raise OriginRefused(
                f"a page of {origin!r:.100} may not call this service; "
                "an operator may name it in `allowed_origins`"
            )


def take_tokens(scope: Scope) -> list[bytes]:
    """Remove `token` from the query string, in the scope itself: servers log from it."""
    query: bytes = scope["query_string"]
    if b"=" not in query:
        return []
    parts = query.split(b"&")
    kept = [part for part in parts if _name(part) != "token"]
    if len(kept) == len(parts):
        return []
    scope["query_string"] = b"&".join(kept)
    taken = (part for part in parts if _name(part) == "token")
    return [unquote_to_bytes(part.partition(b"=")[2].replace(b"+", b" ")) for part in taken]


async def refuse(error: CellshellError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem; a WebSocket is refused before it is accepted."""
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await respond(error)(scope, receive, send)
        return
    code = UNAUTHORIZED if error.status == 401 else FORBIDDEN
    await send({"type": "websocket.close", "code": code, "reason": error.code})


def _tokens(headers: Headers) -> list[bytes]:
    given = (value.partition(" ") for value in headers.getlist("authorization"))
    return [
        token.strip().encode("latin-1") for scheme, _, token in given if scheme.lower() in SCHEMES
    ]


def _unauthorized(offered: bool) -> Unauthorized:
    return Unauthorized(
        "expected the service's token as `Authorization: Bearer TOKEN`, or as `?token=` of a link "
        f"or a WebSocket, got {'another one' if offered else 'none'}"
    )


def _takes_links(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD")


def _name(part: bytes) -> str:
    return unquote_plus(part.partition(b"=")[0].decode("latin-1"))


def check_size(scope: Scope) -> None:
    """Raises HeadersTooLarge."""
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(
            f"expected an address and headers of {MAX_HEAD_BYTES} bytes at most, got {size}"
        )


def _check_host(hosts: Sequence[str]) -> None:
    if len(hosts) == 1 and LOOPBACK.fullmatch(hosts[0]):
        return
    raise HostRefused(
        "without a token the service answers to 127.0.0.1, localhost and [::1] only, "
        f"got Host {', '.join(hosts)!r:.100}; set a token to serve other names"
    )
