"""Ports with host names of their own: requests to these never reach the rest of the service."""

from __future__ import annotations

import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api.auth import check_size, refuse, take_tokens
from api.callers import CallerGone
from api.port_cookies import entrance, tickets
from api.port_headers import Way
from api.port_proxy import exchange
from api.port_socket import carry
from api.port_tickets import ENTRANCE, Tickets
from interpreter.errors import (
    CellshellError,
    HostRefused,
    MethodNotAllowed,
    OriginRefused,
    Unauthorized,
)
from interpreter.interpreter import Interpreter
from interpreter.ports_domain import PortsDomain
from interpreter.sandboxes import Sandbox


class PortHosts:
    """ASGI middleware that answers for every name below the domain of ports."""

    def __init__(
        self, app: ASGIApp, *, domain: PortsDomain, tickets: Tickets, token: SecretStr | None
    ) -> None:
        self.app = app
        self.domain = domain
        self.tickets = tickets
        self.token = token.get_secret_value().encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._is_named(scope):
            await self.app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except CellshellError as error:
            await refuse(error, scope, receive, send)
        except (CallerGone, ClientDisconnect):
            return

    def _is_named(self, scope: Scope) -> bool:
        hosts = Headers(scope=scope).getlist("host")
        return any(self.domain.label(host) is not None for host in hosts)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_size(scope)
        self._take_token(scope)
        connection = HTTPConnection(scope)
        sandbox, port = self._find(connection)
        if scope["type"] == "http" and scope["path"].startswith(ENTRANCE):
            await self._enter(Request(scope), sandbox, port)(scope, receive, send)
            return
        self._check(connection, sandbox, port)
        if scope.get("method") not in ("GET", "HEAD"):
            await sandbox.wake()
        way = Way.of(connection, port, 0, origin=self.domain.origin(sandbox.id, port))
        if scope["type"] == "websocket":
            websocket = WebSocket(scope, receive, send)
            await carry(websocket, way, await sandbox.connect_port(port))
            return
        response = await exchange(Request(scope, receive, send), sandbox, way, opaque=False)
        await response(scope, receive, send)

    def _take_token(self, scope: Scope) -> None:
        """A server may have a `token` of its own in its addresses; ours it never sees."""
        bare = dict(scope)
        if self.token and any(hmac.compare_digest(self.token, t) for t in take_tokens(bare)):
            scope["query_string"] = bare["query_string"]

    def _find(self, connection: HTTPConnection) -> tuple[Sandbox, int]:
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1:
            raise HostRefused(f"expected one Host, got {len(hosts)}")
        interpreter: Interpreter = connection.app.state.interpreter
        ids = (sandbox.id for sandbox in interpreter.sandboxes())
        found = self.domain.find(self.domain.label(hosts[0]) or "", ids)
        if found is None:
            raise _closed()  # as with a wrong cookie: who may not enter learns of no sandbox
        return interpreter.sandbox(found[0]), found[1]

    def _enter(self, request: Request, sandbox: Sandbox, port: int) -> Response:
        """A ticket becomes a cookie, and the browser goes on without it in the address."""
        raw = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1")
        ticket, _, rest = raw.removeprefix(ENTRANCE).partition("/")
        if request.method != "GET":
            raise MethodNotAllowed(f"expected GET here, got {request.method:.20}")
        if not self._opens([ticket], sandbox, port):
            raise _closed()
        query = request.scope["query_string"].decode("latin-1")
        target = "/" + rest.lstrip("/\\") + (f"?{query}" if query else "")
        cookie = entrance(ticket, secure=self.domain.scheme == "https")
        headers = {"Set-Cookie": cookie, "Cache-Control": "no-store"}
        return RedirectResponse(target, 303, headers)

    def _check(self, connection: HTTPConnection, sandbox: Sandbox, port: int) -> None:
        given = tickets(connection.headers.getlist("cookie"), secure=self.domain.scheme == "https")
        if not self._opens(given, sandbox, port):
            raise _closed()
        _check_site(connection, self.domain.origin(sandbox.id, port))

    def _opens(self, given: list[str], sandbox: Sandbox, port: int) -> bool:
        right = self.tickets.of(sandbox.id, port).encode()
        return any(hmac.compare_digest(right, each.encode("latin-1", "replace")) for each in given)


def _check_site(connection: HTTPConnection, own: str) -> None:
    """Ports are of one site, so that a cookie comes with what another sandbox's page asks for."""
    for origin in connection.headers.getlist("origin"):
        if origin.lower() != own:
            raise OriginRefused(f"a page of {origin!r:.100} may not call this port")
    if connection.headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return
    shown = connection.headers.get("sec-fetch-dest") == "document"
    if not shown or connection.scope.get("method") not in ("GET", "HEAD"):
        raise OriginRefused("a page of another origin may link to this port, and no more")


def _closed() -> Unauthorized:
    return Unauthorized(
        "expected the name of a port and the cookie that its link sets, got another or none: "
        "GET .../ports lists the links of a sandbox's ports"
    )
