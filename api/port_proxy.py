"""The way to servers in a sandbox: HTTP, server-sent events and WebSockets."""

from __future__ import annotations

import html
import re
from typing import Annotated

from fastapi import Depends, WebSocket
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.addresses import SANDBOX, TheSandbox
from api.documentation import errors
from api.port_headers import PASSIVE, PREFLIGHT, Way, preflight
from api.port_http import REFUSED_METHODS, Exchange
from api.port_socket import carry
from api.port_tickets import Tickets
from api.routes import JsonRoute, noun
from interpreter.egress_dial import Peer
from interpreter.errors import (
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotReady,
    PortSilent,
    PortUnreachable,
    SandboxNotFound,
)
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

PROXY = SANDBOX + "/ports/{port}/proxy"
OPEN = SANDBOX + "/ports/{port}/open/{ticket}"
PROXY_SEGMENTS, OPEN_SEGMENTS = 6, 7
"""Of our own part of a path."""
PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Port {port}: no answer</title>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto">
<h1>Port {port} does not answer</h1>
<p>{why}.</p>
<p>Sandbox <code>{sandbox}</code>. Reload this page when the server runs.</p>
"""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
router = noun("ports")


class AnyMethodRoute(JsonRoute):
    """For methods such as PROPFIND, of which there are too many to list."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        carried = scope["type"] != "http" or scope["method"] not in REFUSED_METHODS
        return super().matches({**scope, "method": "GET"} if carried else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in REFUSED_METHODS:
            await super().handle(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def find_port(connection: HTTPConnection) -> int:
    """The number in a path, which is a port for sure."""
    given: str = connection.path_params["port"]
    if re.fullmatch("[0-9]{1,5}", given) and 1 <= int(given) <= 65535:
        return int(given)
    raise InvalidRequest(
        f"expected a port from 1 to 65535 in the path, got {given!r:.80}",
        errors=[{"detail": "not a port", "parameter": "port"}],
    )


ThePort = Annotated[int, Depends(find_port)]


async def through_proxy(request: Request, sandbox: TheSandbox, port: ThePort) -> Response:
    """The request goes to the server on this port of the sandbox as it is, path and query after
    `proxy` included, without the caller's credentials; the answer comes back without cookies, and
    as content that is no page of this origin. A browser that comes here is sent on to a link."""
    way = Way.of(request, port, PROXY_SEGMENTS)
    if request.method == "GET" and _is_navigation(request):
        tickets: Tickets = request.app.state.tickets
        link = tickets.link(sandbox.id, port, request.scope.get("root_path", ""))
        return RedirectResponse(link.removesuffix("/") + way.target, 307)
    return await exchange(request, sandbox, way, opaque=False)


async def through_link(request: Request, sandbox: TheSandbox, port: ThePort) -> Response:
    """The same for browsers: the address holds the permission for this port, and no other. Links
    are listed with the ports; pages may call their own server by them."""
    _check_ticket(request, sandbox, port)
    opaque = request.headers.get("origin") == "null"
    if opaque and request.method == "OPTIONS" and PREFLIGHT[0].decode() in request.headers:
        return _bare(Response(status_code=204), preflight(request.scope["headers"]))
    way = Way.of(request, port, OPEN_SEGMENTS)
    return await exchange(request, sandbox, way, opaque=opaque)


async def socket_through_proxy(websocket: WebSocket, sandbox: TheSandbox, port: ThePort) -> None:
    await _carry(websocket, sandbox, Way.of(websocket, port, PROXY_SEGMENTS))


async def socket_through_link(websocket: WebSocket, sandbox: TheSandbox, port: ThePort) -> None:
    _check_ticket(websocket, sandbox, port)
    await _carry(websocket, sandbox, Way.of(websocket, port, OPEN_SEGMENTS))


async def exchange(request: Request, sandbox: Sandbox, way: Way, *, opaque: bool) -> Response:
    """The answer of the server, which has not begun yet. Raises PortUnreachable."""
    if request.method in REFUSED_METHODS:
        raise MethodNotAllowed(f"expected a method other than {request.method}")
    if "service-worker" in request.headers:
        raise Forbidden("expected no service worker: pages of a sandbox have none")
    if way.target == "/" and not request.scope["path"].endswith("/"):
        return RedirectResponse(way.prefix + "/", 307)  # else relative links lead elsewhere
    try:
        connection = await sandbox.connect_port(way.port)
    except PortUnreachable as error:
        if "text/html" in request.headers.get("accept", ""):
            return _page(sandbox, way, error)
        raise
    settings: Settings = request.app.state.settings
    peer = await Peer.of(connection)
    return Exchange(peer, request, way, opaque=opaque, patience=settings.port_answer_seconds)


async def _carry(websocket: WebSocket, sandbox: Sandbox, way: Way) -> None:
    await carry(websocket, way, await sandbox.connect_port(way.port))


def _check_ticket(connection: HTTPConnection, sandbox: Sandbox, port: int) -> None:
    tickets: Tickets = connection.app.state.tickets
    if not tickets.open(connection.scope["path"]):
        raise Forbidden(
            "expected a link as GET .../ports lists it, got one that opens nothing: it is of "
            "another port, or of an earlier service without a token",
            sandbox=sandbox.id,
            port=port,
        )


def _is_navigation(request: Request) -> bool:
    """Whether a browser shows the answer as a page. It tells so where it trusts the connection."""
    mode = request.headers.get("sec-fetch-mode")
    if mode is not None:
        return mode == "navigate"
    return request.headers.get("accept", "").startswith("text/html")


def _page(sandbox: Sandbox, way: Way, error: PortUnreachable) -> Response:
    text = PAGE.format(
        port=way.port,
        why=html.escape(error.message[:1].upper() + error.message[1:]),
        sandbox=html.escape(sandbox.id),
    )
    return _bare(Response(text, error.status, media_type="text/html"), [*PASSIVE])


def _bare(response: Response, headers: list[tuple[bytes, bytes]]) -> Response:
    response.raw_headers.extend(headers)
    return response


for _path, _way in ((PROXY, through_proxy), (OPEN, through_link)):
    for _method in METHODS:
        for _rest in ("", "/{path:path}"):
            router.add_api_route(
                _path + _rest,
                _way,
                methods=[_method],
                name=f"{_way.__name__}_{_method.lower()}",
                include_in_schema=bool(_rest),
                response_class=Response,
                responses=errors(SandboxNotFound, NotReady, PortUnreachable, PortSilent),
                summary=f"{_method} a server in the sandbox",
            )
for _path, _socket in ((PROXY, socket_through_proxy), (OPEN, socket_through_link)):
    for _rest in ("", "/{path:path}"):
        router.add_api_websocket_route(_path + _rest, _socket)
for _path, _way in ((PROXY, through_proxy), (OPEN, through_link)):
    for _rest in ("", "/{path:path}"):
        router.routes.append(
            AnyMethodRoute(_path + _rest, _way, response_class=Response, include_in_schema=False)
        )
