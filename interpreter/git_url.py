"""Which URLs and names git is given, and the secrets taken out of them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from interpreter.errors import InvalidGitUrl

EXPECTED = "expected https://, http://, ssh://, git://, user@host:path or an absolute path"
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
SCHEMES = ("https", "http", "ssh", "git")
SCP_LIKE = re.compile(
    r"(?:[\w.~-]+@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\]):(?!:|//)(?P<path>.+)"
)
IN_TEXT = re.compile(r"(\w://)[^\s/@]+@")


@dataclass(frozen=True)
class GitUrl:
    """A URL git may have, without its secrets, and what they become."""

    url: str
    local: bool = False
    header: tuple[str, str] | None = None
    """A git setting and its value: the credentials, for this host alone."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def name(self) -> str:
        """The directory git would choose."""
        path = self.url.rstrip("/").removesuffix("/.git").rstrip("/")
        name = re.split(r"[/:]", path)[-1].rpartition("@")[2]
        return name.removesuffix(".git").removesuffix(".bundle")

    def censor(self, text: str) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return IN_TEXT.sub(r"\1***@", text)


def parse(url: str) -> GitUrl:
    """Raises InvalidGitUrl for what git would take for an option, a helper or a prompt."""
    check("a URL", url)
    if url.startswith("/"):
        return GitUrl(url, local=True)
    scheme, separator, _ = url.partition("://")
    if not separator:
        if SCP_LIKE.fullmatch(url):
            return GitUrl(url)
        raise InvalidGitUrl(f"{EXPECTED}, got something else")
    if scheme.lower() not in SCHEMES:
        raise InvalidGitUrl(f"{EXPECTED}, got the scheme {scheme!a}")
    return _with_host(url, scheme.lower())


def check(what: str, text: str) -> None:
    """Nothing that git would take for an option; no control characters."""
    if not text or text.startswith("-") or text != text.strip() or CONTROL.search(text):
        raise InvalidGitUrl(
            f"{what} must not start with '-', be empty, contain control characters"
            " or have blanks around it"
        )


def _with_host(url: str, scheme: str) -> GitUrl:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidGitUrl(f"{EXPECTED}, got a URL with a malformed host or port") from None
    if not host or host.startswith("-") or re.search(r"[\s\\]", parts.netloc):
        raise InvalidGitUrl(f"{EXPECTED}, got a URL without a usable host")
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port is None else f"{shown}:{port}"
    user, password = parts.username or "", parts.password or ""
    secrets = {password, unquote(password)}
    header = None
    if scheme in ("https", "http") and user:
        secrets |= {user, unquote(user)} if not password else set()
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        value = f"Authorization: Basic {base64.b64encode(pair).decode()}"
        secrets.add(value.rpartition(" ")[2])
        header = (f"http.{scheme}://{netloc}/.extraHeader", value)
    elif user:
        netloc = f"{user}@{netloc}"
    clean = parts._replace(scheme=scheme, netloc=netloc).geturl()
    return GitUrl(clean, header=header, secrets=frozenset(secrets - {""}))
