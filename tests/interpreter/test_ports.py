"""Listening ports and connections to them, with real sockets of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from interpreter.errors import PortUnreachable
from interpreter.ports import listening, open_connection

NAMED_BADLY = """
import ctypes, os, socket, sys
ctypes.CDLL(None).prctl(15, b"\\xff)\\nNSpid:7", 0, 0, 0)
listener = socket.create_server(("127.0.0.1", 0))
if os.fork():
    listener.close()
    os.wait()
    sys.exit()
print(listener.getsockname()[1], os.getpid(), flush=True)
sys.stdin.read()
"""


class Loopback:
    """Connects as a box does, to this machine's loopback."""

    def __init__(self) -> None:
        self.handed: list[socket.socket] = []

    async def connect(self, port: int, *, family: str = "inet") -> socket.socket:
        kind = socket.AF_INET if family == "inet" else socket.AF_INET6
        connection = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        host = "127.0.0.1" if family == "inet" else "::1"
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
        except BaseException:
            connection.close()
            raise
        self.handed.append(connection)
        return connection


class Failing(Loopback):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    async def connect(self, port: int, *, family: str = "inet") -> socket.socket:
        raise self.error


def test_listening_finds_both_families_and_the_owner():
    four = socket.create_server(("127.0.0.1", 0))
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    ports = [four.getsockname()[1], six.getsockname()[1]]
    with four, six:
        found = {port.port: port for port in listening(os.getpid())}
        shown = [(found[port].address, found[port].pid) for port in ports]
        assert shown == [("127.0.0.1", os.getpid()), ("::1", os.getpid())]
        assert ports[0] not in {port.port for port in listening(os.getpid(), hidden=[ports[0]])}
    assert not set(ports) & {port.port for port in listening(os.getpid())}


def test_connected_sockets_are_not_listed():
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as client:
        assert client.getsockname()[1] not in {port.port for port in listening(os.getpid())}


def test_owner_is_found_below_a_process_with_a_hostile_name():
    child = subprocess.Popen(
        [sys.executable, "-c", NAMED_BADLY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin and child.stdout
    try:
        port, pid = map(int, child.stdout.readline().split())
        assert {found.port: found.pid for found in listening(child.pid)}[port] == pid
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def test_a_box_that_has_ended_has_no_ports():
    child = subprocess.Popen(["true"])
    child.wait()
    assert listening(child.pid) == []


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_connection_reaches_a_server(family: socket.AddressFamily, host: str):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_server(greet, host, 0, family=family)
    async with server:
        reader, writer = await open_connection(Loopback(), server.sockets[0].getsockname()[1])
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


async def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    box = Loopback()
    with pytest.raises(PortUnreachable, match=f"port {free}.*refused.*Start one") as caught:
        await open_connection(box, free)
    assert caught.value.details == {"port": free}
    assert box.handed == []


@pytest.mark.parametrize("error", [ConnectionResetError("the box has ended"), TimeoutError()])
async def test_box_that_does_not_connect(error: OSError):
    with pytest.raises(PortUnreachable):
        await open_connection(Failing(error), 80)
