"""Names whose servers answer one thing when asked and another when asked again."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from test_egress import OK, answering, ask, egress, origin

from interpreter.network_log import NetworkLog
from interpreter.network_policy import Denied, Resolver, VouchedHosts

NAME = "rebinding.example"
PUBLIC, PRIVATE = "93.184.215.14", "127.0.0.1"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What this machine's resolver says of `NAME`, one list a lookup."""
    queue: list[list[str]] = []
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *rest: int, **options: int):
        if host != NAME:
            return real(host, port, *rest, **options)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in queue.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield queue


async def test_the_connection_goes_to_the_address_that_was_checked(
    answers: list[list[str]],
) -> None:
    handler, heads = answering(OK)
    answers += [[PRIVATE], [PUBLIC]]
    log = NetworkLog()
    async with origin(handler) as server, egress(allow_private=[NAME], log=log) as port:
        request = f"GET http://{NAME}:{server}/ HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await ask(port, request.encode())).endswith(b"hi")
    assert len(heads) == 1
    assert [each.address for each in log.after(0)] == [PRIVATE]
    assert answers == [[PUBLIC]]  # nobody asked a second time


async def test_a_private_address_among_public_ones_is_left_out(answers: list[list[str]]) -> None:
    answers += [[PRIVATE, PUBLIC, "169.254.169.254"], [PRIVATE, "10.0.0.1"]]
    resolver = Resolver(VouchedHosts([]))
    try:
        assert await resolver.addresses(NAME, 443) == [PUBLIC]
        with pytest.raises(Denied, match="expected a destination on the public internet"):
            await resolver.addresses(NAME, 443)
    finally:
        resolver.close()
