"""A sandbox is deleted while everything goes on in it: who asked is told that, and at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable

import httpx
import pytest

SANDBOX = "/v1/sandboxes/short"
AT = f"{SANDBOX}/sessions/default"
FILES = f"{AT}/files"
FILL = "head -c 30000000 /dev/zero >big; mkdir d e; for i in $(seq 300); do echo >d/$i; done"


async def trickle() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x" * 65536
        await asyncio.sleep(0.005)


def everything(http: httpx.AsyncClient) -> list[Awaitable[httpx.Response]]:
    at = {"path": "/workspace/d"}
    return [
        http.get(FILES, params=at),
        http.get(f"{FILES}/content", params={"path": "big"}),
        http.put(f"{FILES}/content", params={"path": "up"}, content=trickle()),
        http.post(f"{FILES}/copy", json={"source": "d", "destination": "f"}),
        http.post(f"{FILES}/move", json={"source": "big", "destination": "larger"}),
        http.delete(FILES, params={**at, "recursive": True}),
        http.post(f"{AT}/git/checkout", json={"url": "http://127.0.0.1:1/x.git"}),
        http.post(f"{AT}/exec", json={"command": "sleep 5"}),
        http.post(f"{AT}/code", json={"code": "import time; time.sleep(5)"}),
        http.post(f"{AT}/contexts", json={"language": "python"}),
        http.post(f"{SANDBOX}/sessions", json={}),
        http.post(f"{AT}/processes", json={"command": "sleep 100"}),
        http.get(f"{SANDBOX}/ports"),
        http.get(f"{SANDBOX}/usage"),
        http.get(f"{AT}/contexts/python/variables"),
        http.post(f"{SANDBOX}/pause"),
    ]


@pytest.mark.parametrize("after", [0.01, 0.05, 0.2, 0.4])
async def test_all_are_told(http: httpx.AsyncClient, after: float) -> None:
    assert (await http.put(SANDBOX)).status_code == 201
    assert (await http.post(f"{AT}/exec", json={"command": FILL})).json()["exit_code"] == 0
    asked = [asyncio.ensure_future(each) for each in everything(http)]
    await asyncio.sleep(after)
    asked += [asyncio.ensure_future(each) for each in everything(http)]
    async with asyncio.timeout(10):
        assert (await http.delete(SANDBOX)).status_code == 204
        answers = await asyncio.gather(*asked)
    told = Counter((each.status_code, each.json().get("code")) for each in answers if each.is_error)
    assert {status for status, _ in told} <= {400, 404, 409}, told
    assert told[409, "sandbox_deleted"] > 0
