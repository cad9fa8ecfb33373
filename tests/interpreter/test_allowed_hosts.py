"""Lists of allowed hosts: what may stand in them, what they open, and what is told of it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asking import python_of, shell_of
from pydantic import ValidationError
from test_egress import OK, answering, origin

from interpreter.allowed_host import AllowedHost
from interpreter.errors import InvalidRequest
from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox
from interpreter.network_log import NetworkLog
from interpreter.network_policy import ListedNetwork
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("example.org", "example.org"),
        ("Example.ORG.", "example.org"),
        ("*.example.org", "*.example.org"),
        ("example.org:8443", "example.org:8443"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("93.184.215.14", "93.184.215.14"),
        ("2606:2800:21f::1", "2606:2800:21f::1"),
        ("[2606:2800:021f:0:0:0:0:1]:443", "[2606:2800:21f::1]:443"),
    ],
)
def test_entries(entry: str, meant: str) -> None:
    assert str(AllowedHost.parse(entry)) == meant


@pytest.mark.parametrize(
    "entry",
    [
        *("", "*", "*.", "*.*.org", "a.*.org", "*x.org", "https://example.org", "example.org/path"),
        *("user@example.org", "example.org:", "example.org:0", "example.org:65536", "a:b:c"),
        *("exa mple.org", "example.org\n", "exam\0ple.org", "-a.org", "a..org", "0x7f.1", "127.1"),
        *("2130706433", "[127.0.0.1]", "*.127.0.0.1", "a" * 64 + ".org", "a." * 130 + "org"),
        *("fe80::1%eth0", "[::1", "é" * 300, "\u2100.org"),
    ],
)
def test_what_is_no_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="expected a host"):
        AllowedHost.parse(entry)
    with pytest.raises(ValidationError, match="expected a host"):
        CreateSandbox.model_validate({"network": {"allow": [entry]}})


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("example.org", 443, "listed"),
        ("example.org", 80, "listed"),
        ("example.org", 22, "port_not_listed"),
        ("www.example.org", 443, "host_not_listed"),
        ("badexample.org", 443, "host_not_listed"),
        ("example.org.evil.net", 443, "host_not_listed"),
        ("a.wild.net", 443, "listed"),
        ("b.a.wild.net", 443, "listed"),
        ("wild.net", 443, "host_not_listed"),
        ("xwild.net", 443, "host_not_listed"),
        ("git.net", 22, "listed"),
        ("git.net", 443, "port_not_listed"),
        ("2606:2800:21f:0::1", 443, "listed"),
        ("8.8.8.8", 443, "host_not_listed"),
    ],
)
def test_decisions(host: str, port: int, reason: str) -> None:
    policy = ListedNetwork(["example.org", "*.wild.net", "git.net:22", "2606:2800:21f::1"])
    decision = policy.decide(host, port)
    assert (decision.reason, decision.allowed) == (reason, reason == "listed")


def test_the_log_keeps_the_newest() -> None:
    log = NetworkLog()
    for number in range(1500):
        log.note("GET", f"host{number}", 80, "allowed", "open")
    assert [each.number for each in log.after(0)][::999] == [501, 1500]
    assert [each.number for each in log.after(1498, 1)] == [1499]
    assert len(log.after(10**6)) == 1000  # a number of an earlier service


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[int]:
    async with origin(answering(OK)[0]) as port:
        yield port


@pytest_asyncio.fixture(scope="module")
async def listed(
    tmp_path_factory: pytest.TempPathFactory, server: int
) -> AsyncIterator[Interpreter]:
    home = tmp_path_factory.mktemp("listed")
    hosts = [f"localhost:{server}", "127.0.0.1:22"]
    async with Interpreter(Settings(home=home, egress_private_hosts=hosts)) as interpreter:
        yield interpreter


@pytest_asyncio.fixture(scope="module")
async def allowing(listed: Interpreter, server: int) -> AsyncIterator[Sandbox]:
    allow = [f"localhost:{server}", "localhost:9"]
    request = CreateSandbox.model_validate({"network": {"allow": allow}})
    sandbox = await listed.create_sandbox(request)
    yield sandbox
    await listed.delete_sandbox(sandbox.id)


CURL = "curl -sS --max-time 10 --noproxy '' "
"""Through the proxy also to what is called localhost, which here is the machine's."""


@pytest.mark.box
async def test_what_is_listed_is_reached(allowing: Sandbox, server: int) -> None:
    shell = shell_of(allowing.session("default"))
    result = await shell(f"{CURL} http://localhost:{server}/; {CURL} -p http://localhost:{server}/")
    assert (result.stdout, result.notices) == ("hihi", []), result
    *_, plain, tunnel = allowing.network_log.after(0)
    assert [each.method for each in (plain, tunnel)] == ["GET", "CONNECT"]
    for each in (plain, tunnel):
        assert (each.host, each.port, each.decision, each.reason) == (
            *("localhost", server, "allowed", "listed"),
        )
        assert each.address in ("127.0.0.1", "::1")
        assert each.bytes_in and each.bytes_out


@pytest.mark.box
async def test_what_is_not_listed_is_told(allowing: Sandbox) -> None:
    session = allowing.session("default")
    result = await shell_of(session)(f"{CURL} https://Example.org/ || {CURL} http://127.0.0.1:22/")
    assert result.exit_code == 0
    assert "create the sandbox with '127.0.0.1:22' in `network.allow`" in result.stdout
    (notice,) = result.notices
    assert notice.code == "network_denied"
    assert "example.org:443 (host_not_listed)" in notice.message
    cell = "import urllib.request\nurllib.request.urlopen('http://example.net/')"
    told = await python_of(session)(cell)
    assert told.error is not None and "403" in told.error.evalue
    assert "example.net:80 (host_not_listed)" in told.notices[-1].message
    newest = allowing.network_log.after(0)[-1]
    assert (newest.host, newest.decision) == ("example.net", "denied")


@pytest.mark.box
async def test_a_listed_name_opens_no_private_address(allowing: Sandbox) -> None:
    shell = shell_of(allowing.session("default"))
    result = await shell(f"{CURL} http://localhost:9/")
    assert "private, local and reserved addresses are not reached" in result.stdout
    (notice,) = result.notices
    assert "localhost:9 (address_not_public)" in notice.message


@pytest.mark.box
async def test_programs_without_a_proxy_setting(allowing: Sandbox, server: int) -> None:
    """ssh, and what stands on it, goes by CONNECT through a program of ours."""
    shell = shell_of(allowing.session("default"))
    result = await shell("cat /etc/ssh/ssh_config")
    program = result.stdout.split("ProxyCommand")[-1].strip()
    there = program.replace("%h", "localhost").replace("%p", str(server))
    result = await shell(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {there}")
    assert result.stdout.endswith("\r\n\r\nhi")
    elsewhere = program.replace("%h", "github.example").replace("%p", "22")
    result = await shell(elsewhere)
    assert result.exit_code == 1
    assert "'github.example:22' in `network.allow`" in result.stderr
    if shutil.which("ssh"):
        told = await shell("ssh -o BatchMode=yes git@github.example")
        assert "'github.example:22' in `network.allow`" in told.stderr


@pytest.mark.parametrize("entry", ["127.0.0.1:80", "10.1.2.3", "[::1]:80", "169.254.169.254"])
async def test_private_addresses_are_for_the_operator(listed: Interpreter, entry: str) -> None:
    request = CreateSandbox.model_validate({"network": {"allow": [entry]}})
    with pytest.raises(InvalidRequest, match="opened by the operator alone"):
        await listed.create_sandbox(request)


@pytest.mark.box
async def test_loopback_inside_needs_no_entry(allowing: Sandbox) -> None:
    shell = shell_of(allowing.session("default"))
    serve = "cd /tmp && exec python3 -m http.server --bind 127.0.0.1 8765"
    result = await shell(
        f"({serve} >/dev/null 2>&1 & echo $! >/tmp/pid); "
        "for i in {1..100}; do curl -s http://127.0.0.1:8765/ >/tmp/page && break; sleep 0.05; done"
        "; kill $(cat /tmp/pid); grep -c pid /tmp/page"
    )
    assert result.stdout.strip() == "1", result
    assert result.notices == []


@pytest.mark.box
async def test_a_list_outlives_the_box(allowing: Sandbox, server: int) -> None:
    box = await allowing.box()
    await box.destroy()
    result = await shell_of(allowing.session("default"))(f"{CURL} http://localhost:{server}/")
    assert result.stdout == "hi"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(
            ("egress_upstream", url)
            for url in ("proxy:3128", "socks5://proxy", "http://", "http://p:x")
        ),
        *(("egress_private_hosts", [host]) for host in ("", "*.corp", "http://git.corp", "a:0")),
    ],
)
def test_settings_that_would_open_nothing(tmp_path: Path, setting: str, value: object) -> None:
    with pytest.raises(ValidationError, match="expected"):
        Settings.model_validate({"home": tmp_path, setting: value})
