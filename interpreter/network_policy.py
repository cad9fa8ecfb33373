"""Who may be reached from a sandbox: the policy, and the addresses that no policy opens."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import TYPE_CHECKING, Protocol

from interpreter.allowed_host import WEB_PORTS, AllowedHost, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

# Spelt out rather than asked of `is_global`: its answers differ between patch releases of Python.
_CLOSED_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's metadata and agent address, public by number only
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # with Teredo and 6to4
)
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAMES = re.compile(r"(?:.*\.)?(?:localhost|local|internal|home\.arpa)|[^.]+")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says of one destination; `reason` is a stable word, `detail` a sentence."""

    allowed: bool
    reason: str = ""
    detail: str = ""


class Policy(Protocol):
    """Decides by name and port, before the name is resolved."""

    def decide(self, host: str, port: int) -> Decision: ...


class OpenNetwork:
    """Every public address."""

    def decide(self, host: str, port: int) -> Decision:
        return Decision(True, "open")


class ListedNetwork:
    """The hosts of a list, on the ports of their entries."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: defaultdict[str, set[int]] = defaultdict(set)
        self._below: defaultdict[str, set[int]] = defaultdict(set)
        for entry in map(AllowedHost.parse, entries):
            (self._below if entry.below else self._names)[entry.host].update(entry.ports)

    def decide(self, host: str, port: int) -> Decision:
        ports = self._ports(canonical(host))
        if port in ports:
            return Decision(True, "listed")
        entry = AllowedHost(host, None if port in WEB_PORTS else port)
        remedy = f"create the sandbox with {str(entry)!r} in `network.allow`"
        if not ports:
            return Decision(
                False,
                "host_not_listed",
                f"expected a host that this sandbox may reach, got {host}: to allow it, {remedy}",
            )
        known = ", ".join(map(str, sorted(ports)))
        return Decision(
            False,
            "port_not_listed",
            f"expected a port that this sandbox may reach on {host} ({known}), got {port}: to "
            f"allow it, {remedy}",
        )

    def _ports(self, host: str) -> set[int]:
        ports = set(self._names.get(host, ()))
        above = host.partition(".")[2]
        while above:
            ports |= self._below.get(above, set())
            above = above.partition(".")[2]
        return ports


class Denied(Exception):
    """A destination that may not be reached."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large, as do those it may wrap."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _public_4(parsed) if isinstance(parsed, IPv4Address) else _public_6(parsed)


def _public_4(address: IPv4Address) -> bool:
    return not any(address in block for block in _CLOSED_4)


def _public_6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return _public_4(IPv4Address(address.packed[-4:]))
    return address in _OPEN_6 and not any(address in block for block in _CLOSED_6)


def is_own(address: str) -> bool:
    """Whether this machine itself has the address: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def is_local_name(host: str) -> bool:
    """Whether a name means something only on the network where it is asked for."""
    return _LOCAL_NAMES.fullmatch(host) is not None


class VouchedHosts:
    """Hosts (`host` or `host:port`) that the operator has opened, wherever they lie."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(map(_destination, entries))

    def include(self, host: str, port: int) -> bool:
        return not self._entries.isdisjoint({(host, None), (host, port)})


class Resolver:
    """Turns names into addresses that a sandbox may connect to.

    Lookups run on threads of their own: a sandbox that asks for names whose servers are silent
    must not hold up the rest of the service.
    """

    def __init__(self, vouched: VouchedHosts, threads: int = 4) -> None:
        self._vouched = vouched
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="egress-resolve")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def vouched(self, host: str, port: int) -> bool:
        return self._vouched.include(host, port)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host to try, in order; raises `Denied` or `socket.gaierror`."""
        found = await self._lookup(host, port)
        if self.vouched(host, port):
            return found
        usable = [address for address in found if is_public(address) and not is_own(address)]
        if not usable:
            raise Denied(
                "address_not_public",
                f"expected a destination on the public internet, got {host} ({found[0]}): "
                "private, local and reserved addresses are not reached from a sandbox (its own "
                "servers answer without the proxy, on 127.0.0.1)",
            )
        return usable

    async def _lookup(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(found))


def _destination(entry: str) -> tuple[str, int | None]:
    if entry.count(":") > 1 and not entry.startswith("["):
        return entry.lower(), None
    host, _, port = entry.lower().rpartition(":") if re.search(r":\d+$", entry) else (entry, "", "")
    return host.lower().strip("[]").rstrip("."), int(port) if port else None


def _getaddrinfo(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    addresses = [str(answer[4][0]) for answer in answers]
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return addresses
