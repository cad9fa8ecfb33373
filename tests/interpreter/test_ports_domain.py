"""Host names of ports, there and back."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from interpreter.ports_domain import PortsDomain
from interpreter.settings import Settings

IDS = ["user-123", "a", "User-123", "a.b", "a_b", "x" * 63, "a-", "8000-a", "0"]
DOMAIN = PortsDomain.parse("ports.example.org")


@pytest.mark.parametrize("sandbox", IDS)
@pytest.mark.parametrize("port", [1, 8000, 65535])
def test_names_lead_back(sandbox: str, port: int) -> None:
    host = DOMAIN.origin(sandbox, port).removeprefix("https://")
    label = DOMAIN.label(host.upper() + ".:443")
    assert label and len(label) <= 63 and "." not in label
    assert DOMAIN.find(label, IDS) == (sandbox, port)


def test_names_are_those_that_people_expect() -> None:
    assert DOMAIN.origin("user-123", 8000) == "https://8000-user-123.ports.example.org"
    local = PortsDomain.parse("http://ports.localhost:8000")
    assert local.origin("a", 1) == "http://1-a.ports.localhost:8000"


@pytest.mark.parametrize("label", ["", "8000", "0-a", "65536-a", "08-a", "8000-b", "1h-a", "1.1-a"])
def test_what_is_no_name_leads_nowhere(label: str) -> None:
    assert DOMAIN.find(label, IDS) is None


@pytest.mark.parametrize("host", ["ports.example.org", "xports.example.org", "", "localhost"])
def test_other_hosts_are_left_alone(host: str) -> None:
    assert DOMAIN.label(host) is None


@pytest.mark.parametrize("domain", ["", "a b", "*.example.org", "1.2.3.4", "ftp://a.b", "a.b:0"])
def test_what_is_no_domain_is_an_error_at_start(domain: str) -> None:
    with pytest.raises(ValidationError, match="expected a domain such as"):
        Settings(ports_domain=domain)
