"""The egress proxy, against real servers on this machine's loopback."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvloop

from interpreter.egress import (
    Decision,
    EgressLimits,
    EgressProxy,
    OpenNetwork,
    operator_passthrough,
    passthrough_files,
    passthrough_hosts,
    proxy_environment,
)
from interpreter.network_policy import is_public

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOME = ("127.0.0.1", "localhost")


class Only:
    """A policy that lets one name through."""

    def __init__(self, host: str) -> None:
        self.host = host

    def decide(self, host: str, port: int) -> Decision:
        if host == self.host:
            return Decision(True)
        return Decision(False, "host_not_allowed", f"expected {self.host}, got {host}:{port}")


@asynccontextmanager
async def origin(handler: Handler) -> AsyncIterator[int]:
    """A server whose connections end with their handler."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def egress(policy=None, **options) -> AsyncIterator[int]:
    options.setdefault("allow_private", HOME)
    listener = socket.create_server(("127.0.0.1", 0))
    async with EgressProxy(policy or OpenNetwork(), **options) as proxy:
        await proxy.serve(listener)
        yield listener.getsockname()[1]


async def ask(port: int, request: bytes, *, eof: bool = False) -> bytes:
    """Everything the proxy answers, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if eof:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def client_of(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", trust_env=False)


def answering(response: bytes) -> tuple[Handler, list[bytes]]:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response)
        await writer.drain()

    return handler, heads


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


# Tunnels


async def test_tunnel_carries_both_ways_and_half_closes():
    async def after_eof(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + str(len(await reader.read())).encode())
        await writer.drain()

    async with origin(after_eof) as server, egress() as port:
        body = os.urandom(1 << 20)
        request = b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server
        answer = await ask(port, request + body, eof=True)
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\ngot 1048576"


async def test_tunnel_is_exact_for_large_data():
    async with origin(echo) as server, egress() as port:
        body = os.urandom(8 << 20)
        request = b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % server
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        writer.write_eof()
        assert await reader.read() == body
        writer.close()


async def test_server_end_reaches_the_client():
    handler, _ = answering(b"bye")
    async with origin(handler) as server, egress() as port:
        request = b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server
        assert (await ask(port, request + b"x\r\n\r\n")).endswith(b"\r\n\r\nbye")


async def test_client_gone_ends_the_server_side():
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with origin(handler) as server, egress() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_broken_off_are_no_error_of_ours(factory: Callable[[], Any]):
    trouble: list[object] = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: trouble.append(context))
        runner.run(break_off_often())
        gc.collect()
    assert trouble == []


async def break_off_often() -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000)
        break_off(writer)

    async with origin(breaking) as server, egress() as port:
        for number in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = (b"CONNECT localhost:%d", b"GET http://localhost:%d/")[number % 2] % server
            writer.write(request + b" HTTP/1.0\r\n\r\nabc")
            await reader.read(10)
            break_off(writer)


def break_off(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def test_idle_tunnel_ends():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    limits = EgressLimits(idle_seconds=0.1)
    async with origin(silent) as server, egress(limits=limits) as port:
        with pytest.raises(ConnectionResetError):
            await ask(port, b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server)


# Requests for http://


async def test_forwarded_head_has_nothing_for_the_next_hop():
    handler, heads = answering(OK)
    async with origin(handler) as server, egress() as port:
        answer = await ask(
            port,
            b"GET http://localhost:%d/a//b?c=%%20d HTTP/1.1\r\nHost: elsewhere\r\nX-Secret: 1\r\n"
            b"Connection: keep-alive, x-secret\r\nProxy-Authorization: Basic eDp5\r\n"
            b"Proxy-Connection: keep-alive\r\nUser-Agent: t\r\n\r\n" % server,
        )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nhi")
    assert b"Connection: close\r\n" in answer
    assert heads == [
        b"GET /a//b?c=%%20d HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: t\r\n"
        b"Connection: close\r\n\r\n" % server
    ]


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_stream_both_ways(chunked: bool):
    body = os.urandom(3 << 20)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert (b"Transfer-Encoding: chunked" in head) is chunked
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        received = await reader.readexactly(len(body)) if not chunked else await dechunk(reader)
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(received))
        writer.write(received + b"\r\n0\r\n\r\n")
        await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    async with origin(handler) as server, egress() as port, client_of(port) as client:
        content = pieces() if chunked else body
        answer = await client.post(f"http://localhost:{server}/", content=content)
    assert answer.content == body


async def dechunk(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body


@pytest.mark.parametrize(
    ("method", "response", "body"),
    [
        (b"GET", b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_response_framings(method: bytes, response: bytes, body: bytes):
    handler, _ = answering(response)
    async with origin(handler) as server, egress() as port, client_of(port) as client:
        answer = await client.request(method.decode(), f"http://localhost:{server}/")
    assert answer.content == body
    assert answer.status_code == int(response.split()[1])


async def test_broken_off_response_does_not_look_whole():
    handler, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    async with origin(handler) as server, egress() as port:
        with pytest.raises(ConnectionResetError):
            await ask(port, b"GET http://localhost:%d/ HTTP/1.0\r\n\r\n" % server)


async def test_broken_off_request_does_not_look_whole():
    ended: list[type] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError as error:
            ended.append(type(error))

    async with origin(handler) as server, egress() as port:
        head = b"PUT http://localhost:%d/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
        answer = await ask(port, head % server, eof=True)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert ended == [ConnectionResetError]


async def test_early_answer_to_an_upload_arrives():
    handler, _ = answering(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig")
    async with origin(handler) as server, egress() as port:
        head = b"PUT http://localhost:%d/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
        answer = await ask(port, head % server)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b"big")


# Refusals


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0",
        "localhost",
        "LOCALHOST.",
        "10.1.2.3",
        "169.254.169.254",
        "168.63.129.16",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "255.255.255.255",
        "224.0.0.1",
    ],
)
async def test_addresses_that_are_not_public_are_refused(host: str):
    async with origin(echo) as server, egress(allow_private=()) as port:
        for request in (f"CONNECT {host}:{server}", f"GET http://{host}:{server}/"):
            answer = await ask(port, f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"X-Cellshell-Deny: address_not_public\r\n" in answer
            assert b"public internet" in answer


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::808:808", False),
        ("2001:0:808:808::", False),
        ("::8.8.8.8", False),
        ("100.64.0.1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_is_public(address: str, public: bool):
    assert is_public(address) is public


async def test_private_hosts_are_opened_by_name_and_port_only():
    handler, _ = answering(OK)
    async with origin(handler) as server, egress(allow_private=[f"LocalHost:{server}"]) as port:
        get = b"GET http://%s:%d/ HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await ask(port, get % (b"localhost", server))).endswith(b"hi")
        assert b" 403 " in await ask(port, get % (b"127.0.0.1", server))
        assert b" 403 " in await ask(port, get % (b"localhost", server - 1))


async def test_policy_decides_before_anything_is_resolved():
    async with egress(Only("localhost")) as port:
        answer = await ask(port, b"CONNECT no.such.name.invalid:443 HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"X-Cellshell-Deny: host_not_allowed\r\n" in answer
    assert answer.endswith(b"expected localhost, got no.such.name.invalid:443\n")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1",
        b"GET https://localhost/ HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://user:pw@localhost/ HTTP/1.1",
        b"GET http://localhost:99999/ HTTP/1.1",
        b"CONNECT localhost HTTP/1.1",
        b"CONNECT localhost:0 HTTP/1.1",
        b"CONNECT a%0ab:1 HTTP/1.1",
        b"CONNECT :443 HTTP/1.1",
        b"CONNECT [::1:443 HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET http://\xff/ HTTP/1.1",
    ],
)
async def test_bad_requests(request_line: bytes):
    async with egress() as port:
        answer = await ask(port, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"expected" in answer


async def test_huge_heads_are_refused():
    async with egress() as port:
        answer = await ask(port, b"GET http://localhost/ HTTP/1.1\r\nX: " + b"a" * 300_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_slow_heads_are_given_up():
    async with egress(limits=EgressLimits(head_seconds=0.05)) as port:
        assert (await ask(port, b"GET http://loc")).startswith(b"HTTP/1.1 408 ")


async def test_unreachable_and_unresolvable():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    async with egress() as port:
        answer = await ask(port, b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % free)
        assert answer.startswith(b"HTTP/1.1 502 ") and b"refused" in answer
        answer = await ask(port, b"CONNECT no-such-name.invalid:443 HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 502 ") and b"does not resolve" in answer


async def test_server_that_takes_no_connection_is_a_time_out():
    limits = EgressLimits(connect_seconds=0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as stuck:
        address = stuck.getsockname()
        async with egress(limits=limits) as port:
            with socket.create_connection(address):
                answer = await ask(port, b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % address[1])
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_server_that_never_answers_is_a_time_out():
    async with (
        origin(echo_nothing) as server,
        egress(limits=EgressLimits(idle_seconds=0.1)) as port,
    ):
        answer = await ask(port, b"GET http://localhost:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % server)
    assert answer.startswith(b"HTTP/1.1 504 ")


async def echo_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


# What one sandbox may occupy


async def test_connections_are_bounded():
    async with origin(echo) as server, egress(limits=EgressLimits(connections=2)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server)
            await reader.readuntil(b"\r\n\r\n")
        assert (await ask(port, b"")).startswith(b"HTTP/1.1 503 ")
        for _, writer in held:
            writer.close()


async def test_closing_ends_everything_and_leaks_nothing():
    async with origin(echo) as server:
        before = len(os.listdir("/proc/self/fd"))
        held = []
        async with egress() as port:
            for request in (
                b"",
                b"GET http://lo",
                b"CONNECT localhost:%d HTTP/1.0\r\n\r\n" % server,
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                held.append((reader, writer))
            await held[-1][0].readuntil(b"\r\n\r\n")
        for reader, writer in held:
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    assert len(os.listdir("/proc/self/fd")) < before + 1


async def test_a_new_listener_replaces_the_last():
    handler, _ = answering(OK)
    async with origin(handler) as server, EgressProxy(OpenNetwork(), allow_private=HOME) as proxy:
        ports = []
        for _ in range(2):
            listener = socket.create_server(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
            await proxy.serve(listener)
        request = b"GET http://localhost:%d/ HTTP/1.0\r\n\r\n" % server
        assert (await ask(ports[1], request)).endswith(b"hi")
        with pytest.raises(ConnectionRefusedError):
            await ask(ports[0], request)


# An upstream proxy


async def test_upstream_gets_the_checked_address_and_its_credentials():
    handler, heads = answering(b"HTTP/1.1 200 Fine\r\n\r\nearly")
    secret = b"Basic " + base64.b64encode(b"us er:p@ss")
    async with origin(handler) as server:
        upstream = f"http://us%20er:p%40ss@127.0.0.1:{server}"
        async with egress(upstream=upstream) as port:
            answer = await ask(
                port, b"CONNECT 8.8.8.8:443 HTTP/1.0\r\nProxy-Authorization: x\r\n\r\n"
            )
            assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nearly"
            await ask(port, b"GET http://8.8.8.8/x HTTP/1.1\r\nHost: y\r\n\r\n")
    assert heads[0].startswith(b"CONNECT 8.8.8.8:443 HTTP/1.1\r\n")
    assert heads[1].startswith(b"GET http://8.8.8.8:80/x HTTP/1.1\r\nHost: 8.8.8.8\r\n")
    assert all(head.count(b"Proxy-Authorization: " + secret) == 1 for head in heads)


async def test_upstream_refusal_says_nothing_of_it():
    handler, _ = answering(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=corp\r\n\r\nsecret")
    async with origin(handler) as server, egress(upstream=f"http://127.0.0.1:{server}") as port:
        for request in (b"CONNECT 8.8.8.8:443", b"GET http://8.8.8.8/"):
            answer = await ask(port, request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"corp" not in answer and b"secret" not in answer


async def test_upstream_does_not_open_private_addresses():
    handler, heads = answering(OK)
    async with origin(handler) as server:
        upstream = f"http://127.0.0.1:{server}"
        async with egress(upstream=upstream, upstream_resolves=True, allow_private=()) as port:
            for host in ("10.0.0.1", "localhost", "metadata.google.internal", "printer"):
                answer = await ask(port, f"CONNECT {host}:80 HTTP/1.0\r\n\r\n".encode())
                assert answer.startswith(b"HTTP/1.1 403 ")
            assert b" 200 " in await ask(port, b"CONNECT some-name.invalid:443 HTTP/1.0\r\n\r\n")
    assert [head.split(b"\r\n")[0] for head in heads] == [b"CONNECT some-name.invalid:443 HTTP/1.1"]


@pytest.mark.parametrize("url", ["", "proxy:3128", "socks5://p:1", "http://", "http://s3cret@p:x"])
def test_an_upstream_that_is_none_is_refused_without_telling_it(url: str):
    if not url:
        EgressProxy(OpenNetwork(), upstream=url)
        return
    with pytest.raises(ValueError, match="expected an upstream proxy") as caught:
        EgressProxy(OpenNetwork(), upstream=url)
    assert "s3cret" not in str(caught.value)


# What programs are told


def test_proxy_environment():
    variables = proxy_environment(3128)
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        assert variables[name] == "http://127.0.0.1:3128"
    assert "127.0.0.1" in variables["NO_PROXY"] and variables["no_proxy"] == variables["NO_PROXY"]


def test_passthrough_has_no_credentials(tmp_path):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "both.pem").write_text("-----BEGIN PRIVATE KEY-----")
    environ = {
        "PIP_INDEX_URL": "https://me:token@index.example:8443/simple?key=1#x",
        "PIP_EXTRA_INDEX_URL": "http://a@[fd00::1]/s file:///srv/x  https://h:port/ http://b/=",
        "UV_INDEX": "corp=https://t@index.example/simple",
        "PIP_CERT": str(tmp_path / "ca.pem"),
        "SSL_CERT_FILE": str(tmp_path / "both.pem"),
        "REQUESTS_CA_BUNDLE": "relative.pem",
        "CURL_CA_BUNDLE": str(tmp_path),
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    variables = operator_passthrough(environ)
    assert variables == {
        "PIP_INDEX_URL": "https://index.example:8443/simple",
        "PIP_EXTRA_INDEX_URL": "http://[fd00::1]/s http://b/=",
        "UV_INDEX": "corp=https://index.example/simple",
        "PIP_CERT": str(tmp_path / "ca.pem"),
    }
    assert passthrough_files(variables) == [str(tmp_path / "ca.pem")]
    hosts = passthrough_hosts(variables)
    assert {"index.example:8443", "index.example:443", "[fd00::1]:80", "b:80"} < set(hosts)
