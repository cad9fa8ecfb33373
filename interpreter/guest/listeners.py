"""Who listens on a port of a machine that boxes share: this box, or anybody else."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from family import descendants  # type: ignore[import-not-found]

LISTENING = "0A"
MOST_SEEN = 1024
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


class Listeners:
    """What the box below `init` listens on."""

    def __init__(self, init: int) -> None:
        self.init = init
        self.seen: dict[str, str] = {}
        """Inodes of listening sockets, and where one of the box's processes was seen to hold it."""

    def own(self, host: str, port: int) -> bool:
        """Whether all that a connection to `host` may meet there is of the box."""
        inodes = listening("tcp", host, port) | listening("tcp6", host, port)
        missing = {inode for inode in inodes if not self.still_held(inode)}
        if missing:
            self.look(missing)
        return bool(inodes) and inodes <= self.seen.keys()

    def still_held(self, inode: str) -> bool:
        place = self.seen.get(inode)
        try:
            if place and os.readlink(place) == f"socket:[{inode}]":
                return True
        except OSError:
            pass
        self.seen.pop(inode, None)
        return False

    def look(self, inodes: set[str]) -> None:
        """Through all processes of the box, until the last is found."""
        if len(self.seen) > MOST_SEEN:
            self.seen = {}
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        for pid in descendants([self.init], set(), {self.init}):
            for place, link in descriptors(pid):
                if inode := wanted.pop(link, None):
                    self.seen[inode] = place
            if not wanted:
                return


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


def descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """What a process holds, and where; nothing of one that has ended or hides it."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield f"{folder}/{name}", os.readlink(f"{folder}/{name}")
