"""The way out of a sandbox: an HTTP proxy that listens inside its box and runs outside.

One request a connection. `CONNECT` becomes a tunnel; `http://` is forwarded with the hop-by-hop
headers removed. Names are resolved here, and connections go to exactly the address checked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

import h11

from interpreter.egress_dial import (
    CHUNK,
    Destination,
    Dialler,
    Line,
    Peer,
    Unreachable,
    Upstream,
)
from interpreter.egress_environment import (
    operator_passthrough,
    passthrough_files,
    passthrough_hosts,
    proxy_environment,
)
from interpreter.egress_messages import (
    Headers,
    Refused,
    asked,
    incoming,
    outgoing,
)
from interpreter.network_log import NetworkLog
from interpreter.network_policy import (
    Decision,
    Denied,
    OpenNetwork,
    Policy,
    Resolver,
    VouchedHosts,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

__all__ = [
    "Decision",
    "EgressLimits",
    "EgressProxy",
    "OpenNetwork",
    "Policy",
    "operator_passthrough",
    "passthrough_files",
    "passthrough_hosts",
    "proxy_environment",
]

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: 56\r\n\r\nToo many connections of this sandbox are open: try later"
)
_LINGER_READS = 16
PHRASES = {
    "host_not_listed": "Host not in the network list of this sandbox",
    "port_not_listed": "Port not in the network list of this sandbox",
    "address_not_public": "Not a public address",
}


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Bounds on what one sandbox may occupy."""

    connections: int = 128
    head_seconds: float = 15.0
    connect_seconds: float = 20.0
    idle_seconds: float = 900.0
    linger_seconds: float = 2.0


class EgressProxy:
    """Serves one sandbox. Use as an async context manager, and `serve` its listening socket.

    `upstream` is an operator's own proxy. It is asked for the address that was checked; with
    `upstream_resolves` for the name, which then may resolve nowhere but there.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        upstream: str | None = None,
        upstream_resolves: bool = False,
        allow_private: Iterable[str] = (),
        limits: EgressLimits | None = None,
        log: NetworkLog | None = None,
    ) -> None:
        self._limits = limits or EgressLimits()
        self._resolver = Resolver(VouchedHosts(allow_private))
        self._dialler = Dialler(
            policy,
            self._resolver,
            NetworkLog() if log is None else log,
            Upstream.parse(upstream) if upstream else None,
            upstream_resolves=upstream_resolves,
            timeout=self._limits.connect_seconds,
        )
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def serve(self, listener: socket.socket) -> None:
        """Answer on a listening socket, which is the proxy's from now on, in place of the last."""
        await self._stop()
        listener.setblocking(False)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK)

    async def aclose(self) -> None:
        """Stop listening and end every connection."""
        self._resolver.close()
        await self._stop()

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._conversations) >= self._limits.connections:
            writer.write(_FULL)
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(
            self._converse(Peer(h11.SERVER, reader, writer))
        )
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _converse(self, client: Peer) -> None:
        try:
            try:
                await self._answer(client)
            except Refused as refused:
                await _refuse(client, refused)
            await self._hang_up(client)
        except (OSError, h11.ProtocolError):
            client.reset()  # too late for an answer: it must not look whole
        finally:
            await client.close()

    async def _hang_up(self, client: Peer) -> None:
        """Half-close and read on a little: closing on unread input would discard the answer."""
        async with asyncio.timeout(self._limits.idle_seconds):
            await client.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.linger_seconds):
                for _ in range(_LINGER_READS):
                    if not await client.reader.read(CHUNK):
                        return

    async def _answer(self, client: Peer) -> None:
        request = await self._request(client)
        if request is None:
            return
        try:
            await self._carry(client, request, *asked(request))
        except Denied as denied:
            raise Refused(403, denied.detail, denied.reason) from None
        except Unreachable as failure:
            raise Refused(504 if failure.timed_out else 502, str(failure)) from None

    async def _request(self, client: Peer) -> h11.Request | None:
        try:
            async with asyncio.timeout(self._limits.head_seconds):
                event = await client.receive()
        except TimeoutError:
            raise Refused(
                408, f"expected a whole request head within {self._limits.head_seconds:g} seconds"
            ) from None
        except h11.RemoteProtocolError as error:
            raise Refused(
                error.error_status_hint, f"expected an HTTP/1.1 request: {error}"
            ) from None
        return event if isinstance(event, h11.Request) else None

    async def _carry(
        self, client: Peer, request: h11.Request, wanted: Destination, target: str | None
    ) -> None:
        method = request.method.decode("ascii")
        async with self._dialler.line(wanted, method) as (line, noted):
            try:
                if target is None:
                    await self._tunnel(client, line, wanted)
                else:
                    onwards = outgoing(request, wanted, target, line)
                    await self._exchange(client, line.peer, onwards)
            finally:
                noted.bytes_in, noted.bytes_out = client.sent, line.peer.sent

    async def _tunnel(self, client: Peer, line: Line, wanted: Destination) -> None:
        await self._establish(line, wanted)
        async with asyncio.timeout(self._limits.idle_seconds) as clock:
            early, _ = line.peer.http.trailing_data
            await client.write(b"HTTP/1.1 200 Connection established\r\n\r\n" + early)
            if first := client.http.trailing_data[0]:
                await line.peer.write(first)
            await self._copy_both(client, line.peer, clock)

    async def _copy_both(self, client: Peer, origin: Peer, clock: asyncio.Timeout) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(client, origin, clock))
                group.create_task(self._copy(origin, client, clock))
        except* OSError:
            origin.reset()
            client.reset()

    async def _establish(self, line: Line, wanted: Destination) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                await line.establish()
        except TimeoutError:
            raise Unreachable(f"no answer about {wanted} from upstream", timed_out=True) from None
        except (OSError, h11.ProtocolError):
            raise Unreachable("the operator's upstream proxy broke the connection") from None

    async def _copy(self, source: Peer, sink: Peer, clock: asyncio.Timeout) -> None:
        while data := await source.reader.read(CHUNK):
            await sink.write(data)
            self._touch(clock)
        await sink.finish()

    def _touch(self, clock: asyncio.Timeout) -> None:
        if not clock.expired():
            clock.reschedule(asyncio.get_running_loop().time() + self._limits.idle_seconds)

    async def _exchange(self, client: Peer, origin: Peer, request: h11.Request) -> None:
        upload: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._limits.idle_seconds) as clock:
                await origin.send(request)
                upload = asyncio.get_running_loop().create_task(self._upload(client, origin, clock))
                await self._download(origin, client, clock)
        except (OSError, h11.ProtocolError) as error:
            if client.http.our_state is not h11.SEND_RESPONSE:
                raise
            late = isinstance(error, TimeoutError)
            raise Unreachable(
                f"the server broke off before its answer: {error}", timed_out=late
            ) from None
        finally:
            if upload is not None:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self, client: Peer, origin: Peer, clock: asyncio.Timeout) -> None:
        event: object = None
        while not isinstance(event, h11.EndOfMessage):
            try:
                event = await client.receive()
            except (OSError, h11.RemoteProtocolError):
                origin.reset()  # a request that broke off must not look whole
                return
            if not isinstance(event, h11.Data | h11.EndOfMessage):
                return
            self._touch(clock)
            try:
                await origin.send(event if isinstance(event, h11.Data) else h11.EndOfMessage())
            except OSError:
                return  # a server may answer without reading all

    async def _download(self, origin: Peer, client: Peer, clock: asyncio.Timeout) -> None:
        event: object = None
        while not isinstance(event, h11.EndOfMessage):
            event = await origin.receive()
            self._touch(clock)
            await client.send(incoming(event))


async def _refuse(client: Peer, refused: Refused) -> None:
    body = refused.sentence.encode("ascii", "backslashreplace") + b"\n"
    # Of an answer to CONNECT many clients show this line and nothing else.
    reason = PHRASES.get(refused.deny or "", HTTPStatus(refused.status).phrase)
    headers: Headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
    ]
    if refused.deny is not None:
        headers.append((b"X-Cellshell-Deny", refused.deny.encode()))
    await client.send(h11.Response(status_code=refused.status, headers=headers, reason=reason))
    with suppress(h11.LocalProtocolError):  # an answer to HEAD has no body
        await client.send(h11.Data(data=body))
