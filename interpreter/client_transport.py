"""Requests and event streams over HTTP, with the errors of `interpreter.errors`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from interpreter.client_events import Event, read_event
from interpreter.client_problems import problem, raise_for, unexpected, unreachable
from interpreter.errors import CellshellError, InvalidRequest, NotReady, Unavailable

SILENCE = 60.0
"""A stream silent for longer is lost: the service sends a heartbeat every 15 s."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0)
"""Between attempts of a call that is safe to repeat: half a minute for a service to restart."""


@dataclass(frozen=True)
class Call:
    """One request, made again as it is when it is safe to repeat."""

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    body: BaseModel | None = None
    content: Any = None
    headers: Mapping[str, str] | None = None

    def build(self, http: httpx.AsyncClient, **headers: str) -> httpx.Request:
        content = self.content
        if self.body is not None:
            content = self.body.model_dump_json(by_alias=True, exclude_unset=True)
            headers["Content-Type"] = "application/json"
        return http.build_request(
            self.method,
            self.path + query(self.params),
            content=content,
            headers={**headers, **(self.headers or {})},
        )


def query(params: Mapping[str, Any] | None) -> str:
    """The query string; file names that are not UTF-8 arrive as the bytes they are."""
    given = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (params or {}).items()
        if value is not None
    }
    try:
        text = urlencode(given, quote_via=quote, errors="surrogateescape")
    except UnicodeEncodeError:
        raise InvalidRequest("expected valid Unicode, got a lone surrogate") from None
    return f"?{text}" if text else ""


def open_http(
    base_url: str, token: str | None, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """The HTTP client: no time limit on an answer, but a dead connection is noticed."""
    if not base_url.startswith(("http://", "https://")):
        raise InvalidRequest(f"expected a URL such as http://127.0.0.1:8000, got {base_url!r:.100}")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise InvalidRequest("expected a token of printable ASCII characters")
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx.Timeout(None, connect=10.0),
        transport=transport or httpx.AsyncHTTPTransport(**transport_options()),
    )


def transport_options() -> dict[str, Any]:
    # The service closes an idle connection after 5 s: ours must be given up before.
    return {
        "limits": httpx.Limits(
            max_connections=None, max_keepalive_connections=32, keepalive_expiry=4.0
        ),
        "socket_options": [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    }


class Transport:
    """Sends calls, follows event streams, raises typed errors."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.base_url = str(http.base_url)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def send(self, call: Call, *, repeatable: bool = False) -> httpx.Response:
        """The answer to a call; one that is safe to repeat outlives a restart of the service."""
        pauses = iter(PAUSES if repeatable else ())
        while True:
            try:
                return await self._send_once(call)
            except Unavailable:
                pause = next(pauses, None)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> httpx.Response:
        return await self.send(Call("GET", path, params), repeatable=True)

    async def post(self, path: str, body: BaseModel | None = None) -> httpx.Response:
        return await self.send(Call("POST", path, body=body))

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> httpx.Response:
        return await self.send(Call("DELETE", path, params))

    @asynccontextmanager
    async def open(self, call: Call, **headers: str) -> AsyncIterator[httpx.Response]:
        """A response with its body still to be read."""
        request = call.build(self._http, **headers)
        if headers.get("Accept") == "text/event-stream":
            request.extensions["timeout"] = {"connect": 10.0, "read": SILENCE}
        try:
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise_for(response)
                yield response
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise unreachable(error, self.base_url) from error

    async def events(
        self, call: Call, *, last: frozenset[str], resume: str | None = None
    ) -> AsyncIterator[Event]:
        """Follows a stream to its terminal event, one of `last`; `error` raises.

        `resume` is the path of the execution's events, for a call that is safe to repeat.
        """
        number = 0
        pauses = iter(PAUSES)
        while True:
            again = Call("GET", resume) if resume and number else call
            try:
                async with aclosing(self._read(again, number)) as events:
                    async for event in events:
                        if event.number > number or not event.number:
                            number, pauses = event.number, iter(PAUSES)
                            yield event
                        if event.name in last:
                            return
                raise Unavailable(
                    f"expected the event stream of {call.path} to end with one of "
                    f"{', '.join(sorted(last | {'error'}))}, but it just ended"
                )
            except Unavailable as error:
                pause = next(pauses, None)
                if resume is None or pause is None or not _passes(error):
                    raise
            await asyncio.sleep(pause)

    async def _send_once(self, call: Call) -> httpx.Response:
        try:
            response = await self._http.send(call.build(self._http))
        except httpx.RequestError as error:
            raise unreachable(error, self.base_url) from error
        raise_for(response)
        return response

    async def _read(self, call: Call, number: int) -> AsyncIterator[Event]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if number:
            headers["Last-Event-ID"] = str(number)
        async with self.open(call, **headers) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise unexpected(response)
            async with aclosing(EventSource(response).aiter_sse()) as source:
                async for sent in source:
                    if not sent.data:
                        continue
                    event = read_event(sent)
                    if event.name == "error":
                        raise problem(event.data)
                    yield event
