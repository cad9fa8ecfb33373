"""Runs a kernel that listens on tcp alone behind Unix sockets, which need no network and no port.

    python -I -S -B tcp_relay.py CONNECTION_FILE -- argv of the kernel...

CONNECTION_FILE names Unix sockets. The kernel gets a file of its own in its place, wherever its
argv names it, and each connection to a socket is handed through to the kernel's port: ZeroMQ's
protocol is the same on both. Ends as the kernel ends, and takes it along when killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

CHUNK = 256 * 1024
RETRY = 0.02
ADDRESS = "127.0.0.67"
"""Of the loopback network, and not the one that user code listens on."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((ADDRESS, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_private(info: dict[str, Any]) -> str:
    fd, path = tempfile.mkstemp(prefix="kernel-", suffix=".json")
    with open(fd, "w") as file:
        json.dump(info, file)
    return path


def die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(argv: list[str], public: str, private: str) -> subprocess.Popen[bytes]:
    words = [word.replace(public, private) for word in argv]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)


class Relay:
    def __init__(self, kernel: subprocess.Popen[bytes]) -> None:
        self._kernel = kernel
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, path: str, port: int) -> None:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._hand_through(reader, writer, port))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        with suppress(FileNotFoundError):
            os.unlink(path)
        await asyncio.start_unix_server(accepted, path, limit=CHUNK)

    async def _hand_through(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        try:
            far_reader, far_writer = await self._connect(port)
            ways = [pump(reader, far_writer), pump(far_reader, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                far_writer.close()
        finally:
            writer.close()

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The kernel opens its ports some time after its start, and announces that nowhere."""
        while True:
            try:
                return await asyncio.open_connection(ADDRESS, port, limit=CHUNK)
            except ConnectionRefusedError:
                await asyncio.sleep(RETRY)

    async def ended(self) -> None:
        """Waits for the kernel, and passes interrupts on to it."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        fd = os.pidfd_open(self._kernel.pid)
        loop.add_reader(fd, over.set)
        loop.add_signal_handler(signal.SIGINT, self._kernel.send_signal, signal.SIGINT)
        try:
            await over.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def serve(info: dict[str, Any], ports: dict[str, int], relay: Relay) -> None:
    for name, port in ports.items():
        await relay.listen(f"{info['ip']}-{info[name]}", port)
    await relay.ended()


def end_like(code: int) -> int:
    """By the same signal as the kernel, so that whoever waits sees why."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def main() -> int:
    public, separator, *argv = sys.argv[1:]
    if separator != "--" or not argv:
        sys.stderr.write("expected CONNECTION_FILE -- PROGRAM ARGUMENT...\n")
        return 2
    with open(public) as file:
        info = json.load(file)
    if info["transport"] != "ipc":
        os.execvp(argv[0], argv)
    names = [name for name in info if name.endswith("_port")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    private = write_private({**info, **ports, "transport": "tcp", "ip": ADDRESS})
    try:
        with start(argv, public, private) as kernel:
            asyncio.run(serve(info, ports, Relay(kernel)))
    finally:
        os.unlink(private)
    return end_like(kernel.returncode)


if __name__ == "__main__":
    sys.exit(main())
