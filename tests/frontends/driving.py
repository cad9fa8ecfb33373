"""Programs that are driven, and JupyterLab in a browser."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INSTALLED = HERE.parent.parent / ".frontends"
PROGRAMS = INSTALLED / "venv" / "bin"
TOKEN = "sesame"
SERVER = (
    *("--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1"),
    *("--IdentityProvider.token=", "--ServerApp.shutdown_no_activity_timeout=0"),
)

Step = list[Any]


async def program(*words: object, input: str = "", cwd: Path | None = None) -> str:
    """What it says on stdout."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdin=-1, stdout=-1, stderr=-1, cwd=cwd
    )
    out, err = await asyncio.wait_for(process.communicate(input.encode()), 200)
    assert process.returncode == 0, err.decode()
    return out.decode()


@asynccontextmanager
async def lab(*words: object) -> AsyncIterator[str]:
    """The address of a JupyterLab, which `words` start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        *SERVER,
        f"--port={port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    said = []
    async for line in process.stderr:
        said.append(line.decode())
        if b"Use Control-C" in line:
            break
    else:
        raise AssertionError("".join(said))
    async with asyncio.TaskGroup() as group:
        group.create_task(process.stderr.read())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


async def browse(address: str, picture: Path, steps: list[Step]) -> str:
    """The text of the notebook, after all steps of `browser.py`."""
    words = (address, picture, json.dumps(steps))
    return await program(PROGRAMS / "python", HERE / "browser.py", *words)
