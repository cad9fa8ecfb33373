"""Requests and event streams over HTTP, with the errors of `interpreter.errors`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from interpreter.client_events import read_event
from interpreter.client_problems import problem, raise_for, unexpected, unreachable
from interpreter.errors import InvalidRequest, ServiceUnreachable
from interpreter.events import Event

CONNECT = 10.0
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
    content: bytes | AsyncIterable[bytes] | None = None

    def build(self, http: httpx.AsyncClient, headers: Mapping[str, str] = {}) -> httpx.Request:
        if self.body is None:
            content, kind = self.content, "application/octet-stream"
        else:
            content = self.body.model_dump_json(by_alias=True, exclude_unset=True).encode()
            kind = "application/json"
        headers = headers if content is None else {"Content-Type": kind, **headers}
        path = self.path + query(self.params)
        return http.build_request(self.method, path, content=content, headers=headers)


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
        timeout=httpx.Timeout(None, connect=CONNECT),
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
        for pause in PAUSES if repeatable else ():
            try:
                return await self._send_once(call)
            except ServiceUnreachable:
                await asyncio.sleep(pause)
        return await self._send_once(call)

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> httpx.Response:
        return await self.send(Call("GET", path, params))

    async def post(self, path: str, body: BaseModel | None = None) -> httpx.Response:
        return await self.send(Call("POST", path, body=body))

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> httpx.Response:
        return await self.send(Call("DELETE", path, params))

    @asynccontextmanager
    async def open(
        self, call: Call, headers: Mapping[str, str] = {}, silence: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A response with its body still to be read."""
        request = call.build(self._http, headers)
        request.extensions["timeout"] = {"connect": CONNECT, "read": silence}
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

    async def body(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The bytes of an answer, piece by piece."""
        async with self.open(call) as response:
            async for piece in response.aiter_bytes():
                yield piece

    async def events(
        self, call: Call, *, last: frozenset[str], resume: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Follows a stream to its terminal event, one of `last`; `error` raises.

        `resume` is the path of the execution's events, for a call that is safe to repeat.
        """
        number, pauses = 0, iter(PAUSES)
        while True:
            again = Call("GET", resume) if resume and number else call
            try:
                async with aclosing(self._read(again, number)) as events:
                    async for event in events:
                        if event.number > number:
                            number, pauses = event.number, iter(PAUSES)
                            yield event
                        if event.name in last:
                            return
                raise _cut_short(call)
            except ServiceUnreachable:
                pause = next(pauses, None)
                if resume is None or pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _send_once(self, call: Call) -> httpx.Response:
        try:
            response = await self._http.send(call.build(self._http))
        except httpx.RequestError as error:
            raise unreachable(error, self.base_url) from error
        raise_for(response)
        return response

    async def _read(self, call: Call, number: int) -> AsyncGenerator[Event, None]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if number:
            headers["Last-Event-ID"] = str(number)
        async with self.open(call, headers, SILENCE) as response:
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


def _cut_short(call: Call) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"expected the events of {call.path} to end with a terminal event, but the stream just "
        "ended: the service or a proxy before it went away; give the run an `id` to follow it on"
    )
