"""A small cell, beside what jupyter_client and ipykernel take for it in the same minute."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from kernels.kernel import Kernel

ROUNDS = 60


@pytest.fixture
async def stock(
    kernel_python: str, environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[AsyncKernelClient]:
    manager = AsyncKernelManager(transport="ipc", connection_file=str(tmp_path / "stock.json"))
    argv = [kernel_python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = argv
    await manager.start_kernel(cwd=str(tmp_path), env=environment)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=30)
    yield client
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
    manager.context.destroy(linger=0)


async def stock_cell(client: AsyncKernelClient) -> float:
    start = time.perf_counter()
    id = client.execute("1 + 1", allow_stdin=False)
    while True:
        message = await client.get_iopub_msg()
        state = message["content"].get("execution_state")
        if message["parent_header"].get("msg_id") == id and state == "idle":
            break
    await client.get_shell_msg()
    return time.perf_counter() - start


async def our_cell(kernel: Kernel) -> float:
    start = time.perf_counter()
    await kernel.execute("1 + 1")
    return time.perf_counter() - start


async def test_a_small_cell_is_faster(own_kernel: Kernel, stock: AsyncKernelClient) -> None:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(await stock_cell(stock))
        ours.append(await our_cell(own_kernel))
    assert min(ours) < min(theirs)
    assert sorted(ours)[ROUNDS // 2] < sorted(theirs)[ROUNDS // 2]
