"""What a call cannot be faster than: the same work without a service."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
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


SERVER = """
import asyncio, sys
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nhi")
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class PlainServer:
    """A server that says "hi", asked without a way through anything."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "0"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self._port = int(self._process.stdout.readline())

    def get(self) -> None:
        with closing(HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.request("GET", "/")
            connection.getresponse().read()

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
