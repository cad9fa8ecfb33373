from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernels.endpoints import CHANNELS, NEEDED, Endpoints


@pytest.fixture
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e") / "k"


def bind(stack: ExitStack, path: str) -> None:
    listening = stack.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(path)


async def test_sockets_are_waited_for(prefix: Path) -> None:
    endpoints = Endpoints()
    opening = asyncio.create_task(endpoints.open(prefix))
    with ExitStack() as stack:
        for name in NEEDED:
            await asyncio.sleep(0)
            assert not opening.done()
            bind(stack, f"{prefix}-{CHANNELS[name]}")
        async with asyncio.timeout(5):
            await opening
        targets = [os.readlink(endpoints[name].removeprefix("ipc://")) for name in NEEDED]
        assert targets == [f"{prefix}-{CHANNELS[name]}" for name in NEEDED]
    endpoints.close()


async def test_a_link_is_not_followed(prefix: Path, tmp_path: Path) -> None:
    """The place may put a link to a socket of this machine where the kernel's is expected."""
    endpoints = Endpoints()
    with ExitStack() as stack:
        bind(stack, str(tmp_path / "other"))
        for name in NEEDED:
            os.symlink(tmp_path / "other", f"{prefix}-{CHANNELS[name]}")
        with pytest.raises(OSError, match="expected a socket"):
            await endpoints.open(prefix)
    endpoints.close()


async def test_a_file_is_no_socket(prefix: Path) -> None:
    Path(f"{prefix}-{CHANNELS['iopub']}").write_text("")
    with pytest.raises(OSError, match="expected a socket"):
        await Endpoints().open(prefix)


async def test_giving_up_leaves_no_descriptor(prefix: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await Endpoints().open(prefix)
    assert len(os.listdir("/proc/self/fd")) == before
