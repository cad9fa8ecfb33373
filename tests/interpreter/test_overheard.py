"""Clients that speak ZeroMQ to a kernel: in the environment, and in the records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asking import Python, Shell
from jupyter_client.asynchronous.client import AsyncKernelClient

from interpreter.execution import Execution
from interpreter.models import CodeResult
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

pytestmark = pytest.mark.box


@pytest_asyncio.fixture
async def client(session: Session, python: Python) -> AsyncIterator[AsyncKernelClient]:
    """Connected by what the connection file says."""
    await python("ours = 1")
    kernel = await session.context("python").kernel()
    client = AsyncKernelClient()
    client.load_connection_info(json.loads(json.dumps(kernel.connection)))
    client.start_channels()
    await client.wait_for_ready(timeout=10)
    yield client
    client.stop_channels()


async def _recorded(sandbox: Sandbox, session: Session, code: str) -> Execution:
    """What comes over ZeroMQ has no order with what the client sees."""
    async with asyncio.timeout(8):
        while True:
            for execution in sandbox.executions.of_session(session.id):
                if execution.request.get("code") == code:
                    return execution
            await asyncio.sleep(0.01)


async def _ended(sandbox: Sandbox, session: Session, code: str) -> CodeResult:
    result = await (await _recorded(sandbox, session, code)).result()
    assert isinstance(result, CodeResult)
    return result


async def _run(client: AsyncKernelClient, code: str) -> Any:
    return await client.execute_interactive(code, output_hook=lambda _: None, timeout=8)


async def test_a_cell_is_recorded(
    sandbox: Sandbox, session: Session, client: AsyncKernelClient, shell: Shell
) -> None:
    code = "import os; os.environ['THEIRS'] = 'yes'; os.chdir('/tmp'); print('out'); ours + 1"
    await _run(client, code)
    result = await _ended(sandbox, session, code)
    assert (result.status, result.stdout, result.text) == ("ok", "out\n", "2")
    assert result.execution_count == 2
    assert result.environment_changes.set == ["THEIRS"]
    assert result.environment_changes.cwd == "/tmp"
    assert result.context == "python"
    told = await shell("echo $THEIRS; pwd")
    assert told.stdout == "yes\n/tmp\n"


async def test_errors_and_silent_cells(
    sandbox: Sandbox, session: Session, client: AsyncKernelClient
) -> None:
    await client.execute_interactive("hidden = 1", silent=True, timeout=8)
    await _run(client, "1 / 0")
    result = await _ended(sandbox, session, "1 / 0")
    assert result.status == "error"
    assert result.error is not None
    assert result.error.ename == "ZeroDivisionError"
    codes = [each.request.get("code") for each in sandbox.executions.of_session(session.id)]
    assert codes[-2:] == ["ours = 1", "1 / 0"]


async def test_one_that_is_cancelled(
    sandbox: Sandbox, session: Session, client: AsyncKernelClient, python: Python
) -> None:
    code = "import time; print('on', flush=True); time.sleep(30)"
    client.execute(code)
    execution = await _recorded(sandbox, session, code)
    assert execution.state == "running"
    await execution.cancel()
    result = await _ended(sandbox, session, code)
    assert result.error is not None
    assert result.error.ename == "KeyboardInterrupt"
    assert (await python("ours")).text == "1"


async def test_a_kernel_that_dies_meanwhile(
    sandbox: Sandbox, session: Session, client: AsyncKernelClient
) -> None:
    code = "import os, time; print('on', flush=True); time.sleep(0.5); os.kill(os.getpid(), 9)"
    client.execute(code)
    result = await _ended(sandbox, session, code)
    assert result.status == "died"


async def test_what_comes_later(
    sandbox: Sandbox, session: Session, client: AsyncKernelClient, python: Python
) -> None:
    """Ours waits for theirs, as the kernel has it; each has its own output."""
    code = "import time; time.sleep(0.3); print('theirs')"
    client.execute(code)
    await _recorded(sandbox, session, code)
    assert (await python("print('ours')")).stdout == "ours\n"
    assert (await _ended(sandbox, session, code)).stdout == "theirs\n"
