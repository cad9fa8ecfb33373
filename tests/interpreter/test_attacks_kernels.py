"""Kernels that lie to the service, in a real box: what they send and bind is never trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asking import Python, python_of, shell_of

from interpreter.models import CreateSession
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session

pytestmark = pytest.mark.box


@pytest_asyncio.fixture
async def another(sandbox: Sandbox) -> AsyncIterator[Python]:
    """A session beside the one under attack, whose kernel must not notice."""
    session = await sandbox.create_session(CreateSession())
    python = python_of(session)
    await python("kept = 7")
    yield python
    assert (await python("print(kept)")).stdout == "7\n"
    await sandbox.delete_session(session.id)


SENDS = {
    "not signed": "[b'x', b'<IDS|MSG>', b'', b'{}', b'{}', b'{}', b'{}']",
    "signed with another key": "[b'x', b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}', b'{}']",
    "no delimiter": "[b'x'] * 50",
    "many frames": "[b'x', b'<IDS|MSG>'] + [b'y'] * 5000",
    "empty": "[b'']",
    "large": "[b'x', b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}', b'z' * 50_000_000]",
}


@pytest.mark.parametrize("frames", SENDS)
async def test_messages_that_are_none(python: Python, another: Python, frames: str) -> None:
    async with asyncio.timeout(25):
        cell = f"import time; get_ipython().kernel.iopub_socket.send_multipart({SENDS[frames]})"
        await python(f"{cell}; time.sleep(0.2)", timeout=15)
        again = await python("print('here')", timeout=15)
    assert again.stdout == "here\n", again


async def test_a_message_larger_than_is_read(session: Session, another: Python) -> None:
    """Its connection is closed. What is lost by that is told, and a restart makes a new one."""
    python = python_of(session)
    huge = "[b'x', b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}', bytes(140_000_000)]"
    async with asyncio.timeout(28):
        await python(f"get_ipython().kernel.iopub_socket.send_multipart({huge})", timeout=10)
        again = await python("print('here')", timeout=10)
        assert again.stdout == "here\n" or "output_lost" in [n.code for n in again.notices], again
        await session.context("python").restart()
        assert (await python("print('fresh')", timeout=20)).stdout == "fresh\n"


async def test_messages_in_the_name_of_another(python: Python, another: Python) -> None:
    """Well signed, but of a run that is not its own, or of none."""
    result = await python(
        "k = get_ipython().kernel; send, iopub = k.session.send, k.iopub_socket\n"
        "other = {'header': {'msg_id': 'other', 'session': 's'}}\n"
        "for parent in (other, {'header': {}}, {}, None):\n"
        "    send(iopub, 'stream', {'name': 'stdout', 'text': 'forged'}, parent=parent)\n"
        "    send(iopub, 'execute_reply', {'status': 'ok'}, parent=parent)\n"
        "    send(iopub, 'status', {'execution_state': 'idle'}, parent=parent)\n"
        "print('mine')"
    )
    assert result.stdout == "mine\n", result


async def test_sockets_that_the_code_replaces(
    sandbox: Sandbox, session: Session, another: Python
) -> None:
    """It may bind its own in their place: without the key they are believed nothing, and a
    restart makes new ones."""
    python = python_of(session)
    result = await python(
        "import glob, os, socket\n"
        "mine = []\n"
        "places = [p for p in glob.glob('/run/cellshell/kernels/**', recursive=True)]\n"
        "import stat\n"
        "for place in places:\n"
        "    if stat.S_ISSOCK(os.lstat(place).st_mode):\n"
        "        os.unlink(place); s = socket.socket(socket.AF_UNIX); s.bind(place); s.listen()\n"
        "        mine.append(s)\n"
        "print(len(mine) > 0)"
    )
    assert result.stdout == "True\n", result
    async with asyncio.timeout(30):
        assert (await python("print('still')", timeout=10)).stdout == "still\n"
        assert (await shell_of(session)("echo shell")).stdout == "shell\n"
        await session.context("python").restart()
        again = await python("print('fresh')", timeout=20)
    assert again.stdout == "fresh\n", again
