"""Code that takes all there is: its box still answers, tells why, and is deleted as ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import Run

SANDBOX = "/v1/sandboxes/greedy"
AT = f"{SANDBOX}/sessions/default"
FILL = """
for d in /workspace /dev/shm /run; do head -c 3G /dev/zero >$d/fill; done 2>&1 | grep -c 'No space'
"""
EMPTY = "rm /workspace/fill /dev/shm/fill /run/fill"
FLOOD = """
import os
for n in range(10**9):
    print('x' * 1000)
    if n == 20_000:
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
async def greedy(http: httpx.AsyncClient) -> AsyncIterator[dict[str, int]]:
    """The limits it has, of those that can be had here."""
    wanted = {"pids": 60, "disk_bytes": 64 * 1024 * 1024}
    ways = (await http.get("/health")).json()["isolation"]["limits"]
    limits = {name: limit for name, limit in wanted.items() if ways[name.split("_")[0]]}
    assert (await http.put(SANDBOX, json={"limits": limits})).status_code == 201
    yield limits
    assert (await http.delete(SANDBOX)).status_code == 204


async def test_no_room_left(
    http: httpx.AsyncClient, exec: Run, code: Run, greedy: dict[str, int]
) -> None:
    if "disk_bytes" not in greedy:
        pytest.skip("a limit on disk is not installed here")
    assert (await exec(FILL, at=AT))["stdout"] == "3\n"
    assert (await exec("echo still", at=AT))["stdout"] == "still\n"
    assert (await code("1 + 1", at=AT))["text"] == "2"
    answer = await http.put(f"{AT}/files/content", params={"path": "more"}, content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert (await exec(EMPTY, at=AT))["exit_code"] == 0
    answer = await http.put(f"{AT}/files/content", params={"path": "more"}, content=b"x" * 100_000)
    assert answer.is_success


async def test_no_process_left(exec: Run, code: Run, greedy: dict[str, int]) -> None:
    if "pids" not in greedy:
        pytest.skip("a limit on processes is not installed here")
    assert (await code("1 + 1", at=AT))["text"] == "2"
    many = await exec("for i in $(seq 100); do sleep 100 & done", at=AT, timeout=1)
    assert "pids_limit" in [notice["code"] for notice in many["notices"]]
    bomb = await exec("f() { f | f & }; f; sleep 0.5; false", at=AT)
    assert "pids_limit" in [notice["code"] for notice in bomb["notices"]]
    assert (await exec("echo still", at=AT))["stdout"] == "still\n"
    assert (await code("1 + 1", at=AT))["text"] == "2"


@pytest.mark.usefixtures("greedy")
async def test_everything_is_killed(exec: Run, code: Run) -> None:
    """From inside, in the middle of a flood; and the same when nothing runs."""
    flood = await code(FLOOD, at=AT)
    assert (flood["status"], flood["exit"]["signal"]) == ("died", "SIGKILL")
    await exec("kill -9 -1", at=AT)
    assert (await exec("echo still", at=AT))["stdout"] == "still\n"
    assert (await code("1 + 1", at=AT))["text"] == "2"
