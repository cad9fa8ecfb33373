"""Problem documents (RFC 9457): every error that leaves the service has this form."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from api.addresses import deleted_meanwhile
from api.answers import encode
from api.validation import invalid
from interpreter.errors import (
    BadRequest,
    CellshellError,
    Conflict,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL = 4000
RETRY_AFTER = 1
BY_STATUS: dict[int, type[CellshellError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        TooLarge,
        InvalidRequest,
        Unavailable,
    )
}


def document(error: CellshellError) -> dict[str, Any]:
    """The problem document of an error; its details are further members."""
    detail = error.message
    if len(detail) > LONGEST_DETAIL:
        detail = f"{detail[: LONGEST_DETAIL - 1]}…"
    members = {
        "type": "about:blank",
        "title": http.HTTPStatus(error.status).phrase,
        "status": error.status,
        "code": error.code,
        "detail": detail,
    }
    return members | {name: value for name, value in error.details.items() if name not in members}


def respond(error: CellshellError, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer to an error."""
    given = dict(headers or {})
    if error.status in (429, 503):
        given.setdefault("Retry-After", str(error.details.get("retry_after", RETRY_AFTER)))
    if error.status == 401:
        given.setdefault("WWW-Authenticate", 'Bearer realm="cellshell"')
    given.setdefault("Cache-Control", "no-store")
    given.setdefault("X-Content-Type-Options", "nosniff")
    return Response(encode(document(error)), error.status, given, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error that a route raises with its problem document."""
    app.add_exception_handler(CellshellError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(WebSocketRequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, CellshellError)
    if error.status >= 500:
        error = deleted_meanwhile(connection.scope) or error
    return respond(_shown(connection, error))


async def _on_invalid(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    return respond(_shown(connection, invalid(error.errors())))


def _shown(connection: HTTPConnection, error: CellshellError) -> CellshellError:
    """Frontends of Jupyter show the members `reason` and `message`."""
    if connection.scope["path"].startswith("/api/"):
        error.details.update(reason=http.HTTPStatus(error.status).phrase, message=error.message)
    return error


async def _on_http(connection: HTTPConnection, error: Exception) -> Response:
    """What the framework itself refuses: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, CellshellError):
        return respond(error.__cause__)
    if error.status_code == 405 and isinstance(connection, Request):
        return _other_method(connection)
    if error.status_code == 404:
        return respond(NotFound(_no_route(connection)))
    kind = BY_STATUS.get(error.status_code, CellshellError)
    return respond(kind(str(error.detail)), error.headers)


def _no_route(connection: HTTPConnection) -> str:
    path = connection.scope["path"]
    return f"there is nothing at {path!r:.200}; /openapi.json lists what there is"


def _other_method(request: Request) -> Response:
    methods = allowed_methods(request)
    headers = {"Allow": ", ".join(methods)}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    message = f"expected one of {', '.join(methods)} here, got {request.method:.20}"
    return respond(MethodNotAllowed(message, allowed=methods), headers)


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route of this path takes."""
    methods = {"OPTIONS"}
    for route in request.app.router.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))
