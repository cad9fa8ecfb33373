"""Connections that the egress proxy opens on a sandbox's behalf."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

import h11

from interpreter.network_log import NetworkDecision, NetworkLog
from interpreter.network_policy import Denied, Policy, Resolver, is_local_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHUNK = 64 * 1024
HEAD_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Unreachable(Exception):
    """The destination, or the proxy in front of it, did not take the connection."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Destination:
    """A host, lower case and without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The operator's own proxy. Its credentials stay on this side."""

    at: Destination
    tls: bool
    credentials: bytes | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Upstream:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError("expected an upstream proxy like http://user:password@proxy:3128")
        credentials = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            credentials = b"Basic " + base64.b64encode(pair)
        tls = parts.scheme == "https"
        return cls(Destination(host, port or (443 if tls else 80)), tls, credentials)

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"Proxy-Authorization", self.credentials)] if self.credentials else []


class Peer:
    """One end of an HTTP exchange: an h11 state machine over a stream."""

    def __init__(
        self,
        role: type[h11.CLIENT] | type[h11.SERVER],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)
        self.reader = reader
        self.writer = writer
        self.sent = 0
        """Bytes written to it."""

    @classmethod
    async def of(cls, connection: socket.socket) -> Self:
        """To the server at the other end of a socket, which is the peer's from now on."""
        try:
            streams = await asyncio.open_connection(sock=connection, limit=CHUNK)
        except BaseException:
            connection.close()
            raise
        return cls(h11.CLIENT, *streams)

    async def receive(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.reader.read(CHUNK))
        return event  # type: ignore[return-value]

    async def send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            await self.write(data)

    async def write(self, data: bytes) -> None:
        self._check()
        self.sent += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def finish(self) -> None:
        """Half-close, once the kernel has everything written so far."""
        self._check()
        self.writer.transport.set_write_buffer_limits(0)
        await self.writer.drain()
        self._check()
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def _check(self) -> None:
        if self.writer.transport.is_closing():  # uvloop raises a RuntimeError in what follows
            raise ConnectionResetError("the connection is gone")

    def reset(self) -> None:
        """Close so that the other end sees a failure, never a regular end."""
        connection = self.writer.get_extra_info("socket")
        if connection is not None:  # it may be closed already, by the other end's reset
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection to a destination, or to the upstream proxy that stands for it."""

    peer: Peer
    authority: str
    """What the upstream is asked for: the address that was checked."""
    upstream: Upstream | None
    address: str | None
    """Where it leads, as far as that was found out on this side."""

    async def establish(self) -> None:
        """Have the upstream open a tunnel; a direct line is one already."""
        if self.upstream is None:
            return
        headers = [(b"Host", self.authority.encode()), *self.upstream.headers()]
        await self.peer.send(
            h11.Request(method=b"CONNECT", target=self.authority.encode(), headers=headers)
        )
        await self.peer.send(h11.EndOfMessage())
        event = await self.peer.receive()
        while isinstance(event, h11.InformationalResponse):
            event = await self.peer.receive()
        if not isinstance(event, h11.Response) or not 200 <= event.status_code < 300:
            status = event.status_code if isinstance(event, h11.Response) else "nothing"
            raise Unreachable(
                f"the operator's upstream proxy answered {status} when asked for a tunnel"
            )


class Dialler:
    """Opens lines to what policy and addresses allow."""

    def __init__(
        self,
        policy: Policy,
        resolver: Resolver,
        log: NetworkLog,
        upstream: Upstream | None,
        *,
        upstream_resolves: bool,
        timeout: float,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._log = log
        self._upstream = upstream
        self._upstream_resolves = upstream_resolves
        self._timeout = timeout

    @asynccontextmanager
    async def line(
        self, wanted: Destination, method: str
    ) -> AsyncIterator[tuple[Line, NetworkDecision]]:
        """An open connection, and its entry in the log; it is closed at the end.

        Raises `Denied` or `Unreachable`, after that has been noted.
        """
        note = partial(self._log.note, method, wanted.host, wanted.port)
        decision = self._policy.decide(wanted.host, wanted.port)
        try:
            if not decision.allowed:
                raise Denied(decision.reason, decision.detail)
            line = await self._open_in_time(wanted)
        except Denied as denied:
            note("denied", denied.reason)
            raise
        except Unreachable:
            note("allowed", "failed")
            raise
        noted = note("allowed", decision.reason, line.address)
        try:
            yield line, noted
        except Unreachable:
            noted.reason = "failed"
            raise
        finally:
            self._log.keep(noted)
            await line.peer.close()

    async def _open_in_time(self, wanted: Destination) -> Line:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._open(wanted)
        except TimeoutError:
            message = f"{wanted} did not take a connection within {self._timeout:g} seconds"
            raise Unreachable(message, timed_out=True) from None

    async def _open(self, wanted: Destination) -> Line:
        addresses = await self._addresses(wanted)
        if self._upstream is None or self._resolver.vouched(wanted.host, wanted.port):
            address, peer = await _connect_any(addresses, wanted)
            return Line(peer, str(wanted), None, address)
        name = wanted.host if self._upstream_resolves else addresses[0]
        try:
            peer = await _connect(self._upstream.at, tls=self._upstream.tls)
        except OSError as error:
            raise Unreachable(
                f"the operator's upstream proxy cannot be reached: {_reason(error)}"
            ) from None
        authority = str(Destination(name, wanted.port))
        return Line(peer, authority, self._upstream, addresses[0] if addresses else None)

    async def _addresses(self, wanted: Destination) -> list[str]:
        try:
            return await self._resolver.addresses(wanted.host, wanted.port)
        except socket.gaierror as error:
            if self._upstream is None or not self._upstream_resolves:
                raise Unreachable(f"{wanted.host} does not resolve: {error.strerror}") from None
        if is_local_name(wanted.host):
            raise Denied("address_not_public", f"{wanted.host} is the name of a private network")
        return []


async def _connect_any(addresses: list[str], wanted: Destination) -> tuple[str, Peer]:
    failure = OSError("it has no address")
    for address in addresses:
        try:
            return address, await _connect(Destination(address, wanted.port))
        except OSError as error:
            failure = error
    raise Unreachable(f"{wanted} cannot be reached: {_reason(failure)}")


def _reason(error: OSError) -> str:
    """asyncio writes texts of its own into the errors of a connect."""
    return os.strerror(error.errno) if error.errno else str(error)


async def _connect(at: Destination, *, tls: bool = False) -> Peer:
    reader, writer = await asyncio.open_connection(at.host, at.port, ssl=tls or None, limit=CHUNK)
    return Peer(h11.CLIENT, reader, writer)
