"""What waits for a frontend: bounded, so that one that reads slowly costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from kernels.packets import Packet, made

MOST_BYTES = 16 * 1024 * 1024
MOST_PACKETS = 10_000
PATIENCE = 4
"""How many times as much may wait of what a frontend cannot do without."""


@dataclass
class Missed:
    """Stands in the queue where outputs of a request were left out."""

    parent: bytes
    count: int = 0

    def told(self) -> Packet:
        text = (
            f"[{self.count} outputs left out: this frontend read too slowly; they are recorded]\n"
        )
        return made("iopub", "stream", {"name": "stderr", "text": text}, self.parent)


class Mailbox:
    """Outputs that find no room are left out, and the frontend is told in their place."""

    def __init__(
        self, client: str = "", *, most_bytes: int = MOST_BYTES, most_packets: int = MOST_PACKETS
    ) -> None:
        """`client` is what the frontend calls itself, so that it is known when it comes back."""
        self.client = client
        self._most_bytes = most_bytes
        self._most_packets = most_packets
        self._waiting: deque[Packet | Missed] = deque()
        self._missed: dict[bytes, Missed] = {}
        self._size = 0
        self._came = asyncio.Event()
        self.closed: str | None = None
        """Why nothing comes any more."""

    def put(self, packet: Packet, *, needed: bool) -> None:
        """`needed`: a frontend that does not get it waits forever."""
        if self.closed is not None:
            return
        patience = PATIENCE if needed else 1
        if self._is_full(patience):
            if needed:
                self.close("it read too slowly")
            else:
                self._leave_out(packet.parent)
            return
        self._waiting.append(packet)
        self._size += packet.size
        self._came.set()

    def close(self, reason: str) -> None:
        """What waits is still to be had."""
        self.closed = self.closed or reason
        self._came.set()

    def abandon(self) -> None:
        """Nobody comes for what waits, though requests know the mailbox for a while yet."""
        self.close("its frontend has gone")
        self._waiting.clear()
        self._missed.clear()
        self._size = 0

    async def take(self) -> list[Packet]:
        """All that waits, once something does; empty: it is closed."""
        await self._came.wait()
        found, self._waiting = self._waiting, deque()
        self._size = 0
        self._missed.clear()
        if self.closed is None:
            self._came.clear()
        return [item.told() if isinstance(item, Missed) else item for item in found]

    def _is_full(self, patience: int) -> bool:
        return (
            self._size > self._most_bytes * patience
            or len(self._waiting) > self._most_packets * patience
        )

    def _leave_out(self, parent: bytes) -> None:
        if parent not in self._missed:
            missed = self._missed[parent] = Missed(parent)
            self._waiting.append(missed)
        self._missed[parent].count += 1
