"""What a call cannot be faster than: the same work without a service."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from jupyter_client.manager import start_new_async_kernel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class BareBash:
    """A bash over pipes; a line on its own marks the end of a command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    @classmethod
    def fresh(cls) -> Callable[[], None]:
        bash = cls()
        bash.exec("echo hi")
        return bash.close

    def exec(self, command: str) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{command}\necho $? END\n".encode())
        output = self._process.stdout.fileno()
        tail = b""
        while not tail.endswith(b" END\n"):
            chunk = os.read(output, 1 << 20)
            if not chunk:
                raise RuntimeError("the bare bash has ended")
            tail = (tail + chunk)[-16:]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class PlainKernel:
    """The default ipykernel under a plain asynchronous `jupyter_client`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._manager, self._client = loop.run_until_complete(
            start_new_async_kernel(stderr=subprocess.DEVNULL)
        )

    @classmethod
    def fresh(cls, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        kernel = cls(loop)
        kernel.run_code("1+1")
        return kernel.close

    def run_code(self, code: str) -> None:
        reply = self._loop.run_until_complete(
            self._client.execute_interactive(code, output_hook=lambda message: None, timeout=60)
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the plain kernel answered {reply['content']}")

    def close(self) -> None:
        self._client.stop_channels()
        self._loop.run_until_complete(self._manager.shutdown_kernel(now=True))
