"""The same kernel under our connection and under `jupyter_client`'s own, side by side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from kernels.kernel import Kernel
from tests.kernels.runs import run


@pytest_asyncio.fixture
async def client(kernel: Kernel) -> AsyncIterator[AsyncKernelClient]:
    """Connected by nothing but the kernel's own connection file."""
    prefix = kernel._manager.placed.prefix
    client = AsyncKernelClient()
    client.load_connection_info(
        {**json.loads(prefix.with_suffix(".json").read_text()), "ip": str(prefix)}
    )
    client.start_channels()
    await client.wait_for_ready(timeout=10)
    yield client
    client.stop_channels()


async def execute(client: AsyncKernelClient, code: str, **options: Any) -> tuple[str, list[Any]]:
    """Status, and what the client saw of its own cell."""
    seen: list[Any] = []
    reply = await client.execute_interactive(code, output_hook=seen.append, timeout=10, **options)
    return reply["content"]["status"], [message["content"] for message in seen]


async def test_both_run_cells_of_one_kernel(kernel: Kernel, client: AsyncKernelClient) -> None:
    assert (await run(kernel, "ours = 1")).outcome.status == "ok"
    status, seen = await execute(client, "print('theirs'); ours + 1")
    assert status == "ok"
    assert [each["text"] for each in seen if each.get("name") == "stdout"] == ["theirs\n"]
    assert [each["data"]["text/plain"] for each in seen if "data" in each] == ["2"]
    assert (await execute(client, "theirs = ours + 2"))[0] == "ok"
    assert (await run(kernel, "theirs")).text == "3"
    assert (await execute(client, "1/0"))[0] == "error"


async def test_at_once(kernel: Kernel, client: AsyncKernelClient) -> None:
    """Each gets its own answers, in the order it asked."""

    async def ours() -> list[str]:
        return [(await run(kernel, f"{number} + 1000")).text for number in range(20)]

    async def theirs() -> list[str]:
        answers = []
        for number in range(20):
            _, seen = await execute(client, f"{number} + 2000")
            answers += [each["data"]["text/plain"] for each in seen if "data" in each]
        return answers

    mine, others = await asyncio.gather(ours(), theirs())
    assert mine == [str(number + 1000) for number in range(20)]
    assert others == [str(number + 2000) for number in range(20)]


@pytest.mark.parametrize("key", [b"another key", b""])
async def test_who_does_not_know_the_key_is_not_heard(
    kernel: Kernel, client: AsyncKernelClient, key: bytes
) -> None:
    client.session.key = key
    client.execute("forged = True")
    assert (await run(kernel, "'forged' in globals()")).text == "False"
