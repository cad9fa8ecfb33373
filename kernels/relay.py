"""From Unix sockets on this side to TCP ports in a place: for kernels that only speak TCP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kernels.place import Place

READ_BYTES = 1024 * 1024


class Relay:
    """Listens at `<prefix>-N`; each connection is carried to its port in the place."""

    def __init__(self, place: Place, prefix: Path) -> None:
        self._place = place
        self._prefix = prefix
        self._servers: list[asyncio.Server] = []
        self._carriers: set[asyncio.Task[None]] = set()

    async def open(self, ports: Mapping[int, int]) -> None:
        """`ports`: the number of a socket here to a port there."""
        for number, port in ports.items():
            self._servers.append(await self._listen(f"{self._prefix}-{number}", port))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
        self._servers.clear()

    async def _listen(self, path: str, port: int) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            carrier = asyncio.current_task()
            assert carrier is not None
            self._carriers.add(carrier)
            try:
                await self._carry(reader, writer, port)
            finally:
                self._carriers.discard(carrier)

        with suppress(FileNotFoundError):
            os.unlink(path)
        return await asyncio.start_unix_server(accepted, path, limit=READ_BYTES)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        """Until either side ends; ZeroMQ comes again when there is nothing there yet."""
        try:
            connected = await self._place.connect(port)
            far_reader, far_writer = await asyncio.open_connection(sock=connected, limit=READ_BYTES)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(_pump(reader, far_writer)),
            asyncio.ensure_future(_pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
