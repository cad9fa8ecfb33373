"""How routes are declared: JSON bodies whatever their type, HEAD for GET, errors documented."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from api.bodies import parse, read_bounded
from api.documentation import errors


class JsonRequest(Request):
    """A request whose JSON body was read and parsed before FastAPI asks for it."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        headers = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        super().__init__({**request.scope, "headers": headers}, request.receive, request._send)
        self._body = body
        self._value = value

    async def json(self) -> Any:
        return self._value


class JsonRoute(APIRoute):
    """A route of the service; GET routes answer HEAD too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            body = (await read_bounded(request)).strip()
            value = await parse(body) if body else None
            return await handle(JsonRequest(request, body, value))

        return read_and_handle

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if self._answers_head(scope):
            return super().matches({**scope, "method": "GET"})
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._answers_head(scope):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def _answers_head(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ())
        )


def noun(tag: str, prefix: str = "") -> APIRouter:
    """The router of one noun: operations are named after their functions."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=JsonRoute,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        responses=errors(),
    )


def flat(routers: Sequence[APIRouter]) -> list[BaseRoute]:
    """All routes in one list: matched once, where included routers would match again and again."""
    return [route for router in routers for route in router.routes]
