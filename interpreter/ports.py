"""The TCP ports of a sandbox: which ones listen, and connections to them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from interpreter.errors import PortUnreachable
from interpreter.family import below

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

_LISTENING = "0A"
_MAX_PORTS = 1024
_MAX_PROCESSES = 4096
_MAX_DESCRIPTORS = 4096
_CONNECT_SECONDS = 10.0
RELAYED = "127.0.0.67"
"""Where kernels listen that know no Unix sockets: see `kernels/guest/tcp_relay.py`."""
_MET = ("127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1")
"""Where a server may listen that answers at loopback's usual addresses."""
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """A port that something in a sandbox listens on; `pid` is as the sandbox sees it."""

    port: int
    address: str
    pid: int | None = None


class Connects(Protocol):
    """What is needed of a box here."""

    async def connect(
        self, port: int, *, family: Literal["inet", "inet6"] = "inet"
    ) -> socket.socket: ...


def listening(box_host_pid: int, *, hidden: Collection[int] = ()) -> list[ListeningPort]:
    """The listening ports of the network that a process is in, without asking inside the box.

    `hidden` are ports of ours, such as the egress proxy's; kernels' are left out. A box that has
    ended has none.
    """
    found: dict[int, ListeningPort] = {}
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= _table(Path(f"/proc/{box_host_pid}/net/{table}"), hidden)
    owners = _owners(box_host_pid, found.keys()) if found else {}
    ports = {replace(port, pid=owners.get(inode)) for inode, port in found.items()}
    return sorted(ports, key=lambda port: (port.port, port.address))


def listens(box_host_pid: int, process_host_pid: int, port: int) -> bool:
    """Whether a process of a box, or one below it, listens on `port`.

    A listener that nobody in the box is seen to hold counts too: it may be any process's.
    """
    inodes: set[int] = set()
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found = _table(Path(f"/proc/{box_host_pid}/net/{table}"))
            inodes |= {inode for inode, each in found.items() if each.port == port}
    if not inodes:
        return False
    owned = inodes & _owners(process_host_pid, inodes).keys()
    return bool(owned) or not _owners(box_host_pid, inodes)


def owns(box_host_pid: int, port: int) -> bool:
    """Whether whatever a connection to `port` may meet is the box's, on a network it shares."""
    found = [each for each in listening(box_host_pid) if each.port == port]
    met = [each for each in found if each.address in _MET]
    return bool(met) and all(each.pid is not None for each in met)


async def connect(box: Connects, port: int) -> socket.socket:
    """A connection to a server on a sandbox's loopback. Raises PortUnreachable."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await _connect(box, port)
    except TimeoutError:
        raise PortUnreachable(
            f"port {port} took no connection within {_CONNECT_SECONDS:g} seconds: its server is "
            "stuck or overloaded",
            port=port,
        ) from None
    except OSError as error:
        raise unheard(port, os.strerror(error.errno) if error.errno else str(error)) from None


def unheard(port: int, reason: str = "nothing listens") -> PortUnreachable:
    return PortUnreachable(
        f"expected a server on port {port} of the sandbox, got: {reason}. "
        "Start one, and have it listen on 127.0.0.1 or 0.0.0.0",
        port=port,
    )


async def open_connection(
    box: Connects, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The same as a stream, which the caller closes."""
    connection = await connect(box, port)
    try:
        return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise


async def _connect(box: Connects, port: int) -> socket.socket:
    try:
        return await box.connect(port)
    except ConnectionRefusedError:
        return await box.connect(port, family="inet6")


def _table(path: Path, hidden: Collection[int] = ()) -> dict[int, ListeningPort]:
    """Inodes to listening ports. The kernel lists listeners first, so the read ends early."""
    found: dict[int, ListeningPort] = {}
    with path.open() as lines:
        for line in islice(lines, 1, 1 + _MAX_PORTS):
            fields = line.split()
            if fields[3] != _LISTENING:
                break
            address, _, port = fields[1].rpartition(":")
            if int(port, 16) not in hidden and (host := _address(address)) != RELAYED:
                found[int(fields[9])] = ListeningPort(int(port, 16), host)
    return found


def _address(digits: str) -> str:
    """The kernel prints each 32-bit word in the byte order of the machine."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _owners(root: int, inodes: Collection[int]) -> dict[int, int]:
    """Which of a process and its descendants holds each socket; what cannot be seen is left out."""
    owners: dict[int, int] = {}
    for pid in [root, *(each.pid for each in below(root)[:_MAX_PROCESSES])]:
        with suppress(OSError):
            held = _sockets(pid).intersection(inodes)
            if held:
                owners |= dict.fromkeys(held, _inner_pid(pid))
    return owners


def _sockets(pid: int) -> set[int]:
    folder = f"/proc/{pid}/fd"
    found = set()
    with os.scandir(folder) as descriptors:
        for descriptor in islice(descriptors, _MAX_DESCRIPTORS):
            with suppress(FileNotFoundError):
                if link := _SOCKET.fullmatch(os.readlink(descriptor.path)):
                    found.add(int(link[1]))
    return found


def _inner_pid(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_bytes()  # a process names itself, in any bytes
    return int(status.partition(b"\nNSpid:")[2].split(b"\n", 1)[0].split()[-1])
