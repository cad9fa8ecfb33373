"""One HTTP exchange with a server in a sandbox, streamed both ways."""

from __future__ import annotations

import asyncio

import h11
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.callers import CallerGone
from api.port_headers import Headers, Way, inwards, outwards
from api.races import race
from interpreter.egress_dial import Peer
from interpreter.errors import BadRequest, PortSilent, PortUnreachable

REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
"""TRACE sends back what it got, so that a page would read what proxies add to its requests;
CONNECT asks for a tunnel."""


class Exchange(Response):
    """Carries the request to the server at the other end of `peer`, and its answer back.

    `patience` are the seconds from the last of the request to the first of the answer.
    """

    def __init__(
        self, peer: Peer, request: Request, way: Way, *, opaque: bool, patience: float
    ) -> None:
        super().__init__()
        self._patience = patience
        self._clock: asyncio.Timeout | None = None
        """Runs until the answer begins."""
        self._peer = peer
        self._way = way
        self._opaque = opaque
        self._method = request.method
        self._inwards = _framed(inwards(request, way), request)
        self._began = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send_head()
            await self._both(receive, send)
        except (OSError, h11.ProtocolError) as error:
            if self._began:
                return  # not completed: the server cuts the connection, so it does not look whole
            raise PortUnreachable(
                f"the server on port {self._way.port} broke off before its answer, or what it said "
                f"is no HTTP: {error}",
                port=self._way.port,
            ) from None
        finally:
            await self._peer.close()

    async def _send_head(self) -> None:
        try:
            request = h11.Request(
                method=self._method, target=self._way.target, headers=self._inwards
            )
        except h11.LocalProtocolError as error:
            raise BadRequest(f"expected a request that HTTP/1.1 can carry: {error}") from None
        await self._peer.send(request)

    async def _both(self, receive: Receive, send: Send) -> None:
        """Until the answer is complete. A caller that goes away ends it."""
        up, down = await race(self._upload(receive), self._download(send))
        if isinstance(down, asyncio.CancelledError):
            raise up if isinstance(up, Exception) else CallerGone
        if isinstance(down, BaseException):
            raise down

    async def _upload(self, receive: Receive) -> None:
        """Returns when the caller has gone."""
        done = refused = False
        while (message := await receive())["type"] != "http.disconnect":
            if done or refused:
                continue
            done = not message.get("more_body", False)
            if self._clock and not self._clock.expired():
                self._clock.reschedule(asyncio.get_running_loop().time() + self._patience)
            try:
                if body := message.get("body"):
                    await self._peer.send(h11.Data(data=body))
                if done:
                    await self._peer.send(h11.EndOfMessage())
            except OSError:
                refused = True  # a server may answer without reading all
        if not done:
            self._peer.reset()  # a request that broke off must not look whole

    async def _download(self, send: Send) -> None:
        await self._start(await self._head(), send)
        event: object = None
        while not isinstance(event, h11.EndOfMessage):
            event = await self._peer.receive()
            if isinstance(event, h11.Data):
                await send(
                    {"type": "http.response.body", "body": bytes(event.data), "more_body": True}
                )
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("it closed the connection")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _head(self) -> h11.Response:
        try:
            async with asyncio.timeout(self._patience) as self._clock:
                while not isinstance(event := await self._peer.receive(), h11.Response):
                    if isinstance(event, h11.ConnectionClosed):
                        raise h11.RemoteProtocolError("it closed the connection")
        except TimeoutError:
            raise PortSilent(
                f"the server on port {self._way.port} took the request, and did not begin its "
                f"answer within {self._patience:g} seconds (setting `port_answer_seconds`)",
                port=self._way.port,
            ) from None
        finally:
            self._clock = None
        return event

    async def _start(self, answer: h11.Response, send: Send) -> None:
        headers = outwards(list(answer.headers), self._way, opaque=self._opaque)
        self._began = True
        await send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )


def _framed(headers: Headers, request: Request) -> Headers:
    """A body of unknown length goes on in pieces."""
    if "transfer-encoding" not in request.headers:
        return headers
    kept = [pair for pair in headers if pair[0] != b"content-length"]
    return [*kept, (b"transfer-encoding", b"chunked")]
