"""What programs in a sandbox are told about the way out: the proxy, and the operator's indexes.

Package indexes and certificates that the operator has set for the service hold in its sandboxes
too, without credentials: user names and passwords, queries and fragments of a URL stay here. A
token that an index expects inside the path of its URL does travel.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from interpreter import walls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOOPBACK = "localhost,127.0.0.1,::1"
_INDEXES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
)
_CERTIFICATES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)
_NAMED = re.compile(r"(?:([A-Za-z0-9._-]+)=)?(https?://.+)", re.IGNORECASE)
_MAX_CERTIFICATES = 16 << 20
REGISTRIES = ("pypi.org:443", "files.pythonhosted.org:443", "registry.npmjs.org:443")
"""Only the operator's own resolver can lead these to a private address: to a mirror."""


def proxy_environment(port: int) -> dict[str, str]:
    """The variables by which pip, npm, git, curl and their like find the proxy in the box."""
    proxy = f"http://127.0.0.1:{port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    variables = {name: proxy for upper in names for name in (upper, upper.lower())}
    return variables | {
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        "NODE_USE_ENV_PROXY": "1",  # Node's own fetch looks at the others only with this
    }


def write_ssh_config(etc: Path, program: str, port: int) -> None:
    """`ssh`, and with it git, scp and rsync, knows no such variables: it runs our `connect.py`."""
    directory, file = etc / "ssh", etc / "ssh" / "ssh_config"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    command = f"{walls.python()} -I -S -B {program} {port} %h %p"
    config = (
        f"Host localhost 127.0.0.1 ::1\n    ProxyCommand none\nHost *\n    ProxyCommand {command}\n"
    )
    file.write_text(config)
    file.chmod(0o644)


def operator_passthrough(environ: Mapping[str, str]) -> dict[str, str]:
    """The operator's index and certificate settings, as a sandbox may see them."""
    indexes = {name: _public_urls(environ.get(name, "")) for name in _INDEXES}
    files = {name: environ.get(name, "") for name in _CERTIFICATES}
    return {name: value for name, value in indexes.items() if value} | {
        name: path for name, path in files.items() if _is_certificate(path)
    }


def passthrough_files(variables: Mapping[str, str]) -> list[str]:
    """The files to be bound read-only, at the same path, for what `operator_passthrough` gave."""
    return sorted({variables[name] for name in _CERTIFICATES if name in variables})


def passthrough_hosts(variables: Mapping[str, str]) -> list[str]:
    """The `host:port` of the operator's indexes and the public ones, for `allow_private`."""
    hosts = set(REGISTRIES)
    for name in _INDEXES:
        for entry in variables.get(name, "").split():
            hosts.add(_host_and_port(entry))
    return sorted(hosts - {""})


def _public_urls(setting: str) -> str:
    return " ".join(filter(None, map(_public_url, setting.split())))


def _public_url(entry: str) -> str:
    """`https://user:pw@host/simple` without the secret; nothing for what is no such URL."""
    named = _NAMED.fullmatch(entry)
    if named is None:
        return ""
    try:
        parts = urlsplit(named[2])
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return ""
    if not parts.hostname:
        return ""
    prefix = f"{named[1]}=" if named[1] else ""
    location = parts.netloc.rpartition("@")[2]
    return prefix + urlunsplit((parts.scheme, location, parts.path, "", ""))


def _host_and_port(entry: str) -> str:
    named = _NAMED.fullmatch(entry)
    if named is None:
        return ""
    parts = urlsplit(named[2])
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_certificate(path: str) -> bool:
    """A readable file of certificates, without a key in it that would be given away."""
    if not os.path.isabs(path) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return b"PRIVATE KEY" not in file.read(_MAX_CERTIFICATES)
    except OSError:
        return False
