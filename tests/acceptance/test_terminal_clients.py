"""Terminal clients that go away without a word."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect


async def test_client_gone_while_the_terminal_floods(
    base_url: str, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"{base_url.replace('http', 'ws', 1)}{session}/terminal?id=flood"
    for _ in range(5):
        async with connect(address, compression=None) as socket:
            await socket.send(b"yes\n")
            while b"y\r\ny\r\n" not in await socket.recv(decode=False):
                continue
            socket.transport.abort()
    async with connect(address) as socket:
        await socket.send(b"\x03")
        await socket.send(b"exit 3\n")
        while b'"code":3' not in (await socket.recv(decode=False)).replace(b" ", b""):
            continue
    assert not [record for record in caplog.records if record.name == "api.failures"]
