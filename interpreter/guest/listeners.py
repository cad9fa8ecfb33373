"""Who listens on a port of a machine that boxes share: this box, or anybody else."""

from __future__ import annotations

import os
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address

from family import descendants  # type: ignore[import-not-found]

LISTENING = "0A"
ANY = ("0.0.0.0", "::")


def loopback(address: bytes) -> tuple[str | None, int]:
    """Host and port of a socket address; no host for one that is not this machine's loopback."""
    (family,) = struct.unpack_from("=H", address)
    try:
        (port,) = struct.unpack_from("!H", address, 2)
        if family == socket.AF_INET:
            found: IPv4Address | IPv6Address = IPv4Address(struct.unpack_from("4s", address, 4)[0])
        else:
            found = IPv6Address(struct.unpack_from("16s", address, 8)[0])
    except struct.error:
        return None, 0
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_unspecified:  # the kernel takes it for loopback
        return ("127.0.0.1" if found.version == 4 else "::1"), port
    return (str(found) if found.is_loopback else None), port


def belongs(init: int, host: str, port: int) -> bool:
    """Whether all that a connection to `host` may meet there is of the box."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        inodes |= listening(table, host, port)
    if not inodes:
        return False
    for pid in descendants([init], set(), {init}):
        inodes -= sockets(pid)
        if not inodes:
            return True
    return False


def listening(table: str, host: str, port: int) -> set[str]:
    """Inodes of sockets. The kernel lists listeners first, so the read ends early."""
    found = set()
    try:
        with open(f"/proc/net/{table}") as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[3] != LISTENING:
                    break
                address, _, number = fields[1].rpartition(":")
                if int(number, 16) == port and local(address) in (host, *ANY):
                    found.add(fields[9])
    except FileNotFoundError:
        pass  # a machine without IPv6
    return found


def local(digits: str) -> str:
    """The kernel prints each 32-bit word in the byte order of the machine."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return str(IPv4Address(packed))
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def sockets(pid: int) -> set[str]:
    """Inodes of what a process holds; nothing of one that has ended or hides it."""
    found = set()
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                link = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if link.startswith("socket:["):
                found.add(link[8:-1])
    except OSError:
        pass
    return found
