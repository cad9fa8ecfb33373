"""Entries of a list of allowed hosts: which there may be, and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

WEB_PORTS = (80, 443)
"""What an entry without a port opens."""
MAX_NAME = 253
MAX_ENTRY = MAX_NAME + len("*.:65535")
_PORT = re.compile(r"(.*):([0-9]*)", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_EXPECTED = "expected a host such as 'example.org', '*.example.com' or 'example.org:8443'"


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry. `host` is lower case and ASCII, an address in its shortest form."""

    host: str
    port: int | None = None
    below: bool = False
    """Every name below `host`, and not `host` itself."""

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """Raises ValueError with a sentence for what is no entry."""
        _check_shape(text)
        name, port = _split_port(text)
        below = name.startswith("*.")
        host = _name(name.removeprefix("*."), text)
        if below and as_address(host):
            raise ValueError(f"{_EXPECTED}, got {text!a}: nothing lies below an address")
        return cls(host, port, below)

    def __str__(self) -> str:
        name = f"*.{self.host}" if self.below else self.host
        if self.port is None:
            return name
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"

    @property
    def ports(self) -> tuple[int, ...]:
        return WEB_PORTS if self.port is None else (self.port,)


def as_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, in the one spelling that everybody reads alike."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def canonical(host: str) -> str:
    """The form in which hosts are compared; `host` is lower case already."""
    address = as_address(host)
    return host if address is None else str(address)


def _check_shape(text: str) -> None:
    if not text:
        raise ValueError(f"{_EXPECTED}, got an empty string")
    if len(text) > MAX_ENTRY:
        raise ValueError(f"{_EXPECTED}, got {len(text)} characters: at most {MAX_ENTRY} are one")
    if "://" in text:
        raise ValueError(f"{_EXPECTED}, got {text!a}: leave out the scheme")
    if found := re.search(r"[\s/?#@\\%]", text):
        raise ValueError(f"{_EXPECTED}, got {text!a}: {found[0]!a} is no part of a host")
    if text.startswith("*") and text.strip("*.") == "":
        raise ValueError(f'{_EXPECTED}, got {text!a}: every host is `"network": "open"`')
    if "*" in text.removeprefix("*."):
        raise ValueError(f"{_EXPECTED}, got {text!a}: `*.` stands at the start, and once")


def _split_port(text: str) -> tuple[str, int | None]:
    """An address of version 6 needs brackets only in front of a port."""
    if as_address(text):
        return text, None
    if text.startswith("[") and text.endswith("]"):
        return text, None
    parts = _PORT.fullmatch(text)
    if parts is None:
        return text, None
    if not parts[2] or len(parts[2]) > 5 or not 1 <= int(parts[2]) <= 65535:
        raise ValueError(f"{_EXPECTED}, got {text!a}: a port is a number from 1 to 65535")
    return parts[1], int(parts[2])


def _name(name: str, entry: str) -> str:
    if name.startswith("[") and name.endswith("]"):
        address = as_address(name[1:-1])
        if isinstance(address, IPv6Address):
            return str(address)
        raise ValueError(f"{_EXPECTED}, got {entry!a}: brackets are for addresses of version 6")
    host = _ascii(name, entry).removesuffix(".")
    if address := as_address(host):
        return str(address)
    labels = host.split(".")
    if len(host) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{_EXPECTED}, got {entry!a}, which no host can be called")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f"{_EXPECTED}, got {entry!a}: write an address with four numbers")
    return host


def _ascii(name: str, entry: str) -> str:
    """As it is asked for in the DNS, and by clients of the proxy."""
    if name.isascii():
        return name.lower()
    try:
        return idna.encode(name, uts46=True).decode().lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(f"{_EXPECTED}, got {entry!a}: {error}") from None
