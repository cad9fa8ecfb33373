"""Programs that run in a box for the service, and are read to their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from interpreter.descriptors import Reader, handing
from interpreter.trees import end_tree

if TYPE_CHECKING:
    from interpreter.box import Box
    from interpreter.box_process import BoxProcess

GRACE = 5.0
KEPT = 16 * 1024
Stream = Literal["stdout", "stderr"]


async def run(
    box: Box,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    reads: Stream,
    keep: int = KEPT,
) -> tuple[int, str]:
    """Its exit code and the last `keep` bytes it wrote; all it started is over when this is.

    Raises OSError when it cannot be started.
    """
    said = bytearray()
    process = await box.spawn(
        argv,
        env=env,
        cwd=cwd,
        stdout="pipe" if reads == "stdout" else "null",
        stderr="pipe" if reads == "stderr" else "null",
    )
    fd = process.stdout if reads == "stdout" else process.stderr
    assert fd is not None
    reader = Reader(fd, handing(lambda data: _keep(said, data, keep)))
    try:
        code = await process.wait()
        reader.drain()
    finally:
        try:
            await _end(box, process, reader)
        finally:
            reader.close()
    return code, bytes(said).decode(errors="replace")


async def _end(box: Box, process: BoxProcess, reader: Reader) -> None:
    async def over() -> None:
        await process.wait()
        await reader.ended

    with suppress(ConnectionError):
        if not process.ended.done():
            await end_tree(box, process.pid, over, grace=GRACE)
    await process.release()


def _keep(said: bytearray, data: bytes, most: int) -> None:
    said += data
    del said[:-most]
