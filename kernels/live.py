"""A kernel's process, from its start to its end, and the connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kernels.connection import KernelConnection
from kernels.errors import KernelFailed
from kernels.outcome import Death
from kernels.place import PlacedProcess

ANSWER_TIMEOUT = 10.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
SUBSCRIBED_GRACE = 0.05
MAX_HANDSHAKES = 20
LAST_WORDS = 0.05
"""How long a dead kernel's channels must be silent before its requests are given up."""
MAX_LAST_WORDS = 2.0
FEATURE = "cellshell"
"""Told by our own kernel: it answers on the control channel whatever can be asked aside."""


class LiveKernel:
    """Watches the process; `died` completes at its end, and what was asked completes with it."""

    def __init__(
        self, connection: KernelConnection, process: PlacedProcess, died: asyncio.Future[Death]
    ) -> None:
        self.connection = connection
        self.process = process
        self.died = died
        self._features: frozenset[str] = frozenset()
        self._watch = asyncio.create_task(self._until_death(), name=f"kernel {process.pid}")

    @property
    def is_ours(self) -> bool:
        return FEATURE in self._features

    @property
    def aside(self) -> str:
        """The channel on which a request is answered while a cell runs, if there is one."""
        return "control" if self.is_ours else "shell"

    def send_signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signum)

    async def handshake(self, channel: str) -> None:
        """Until it answers, and its output arrives too: both channels connect on their own."""
        for _ in range(MAX_HANDSHAKES):
            request = self.connection.request(
                channel, "kernel_info_request", {}, grace=SUBSCRIBED_GRACE
            )
            reply = await request.wait()
            if reply is None:
                raise KernelFailed(
                    f"expected the kernel to come up, and it ended with {await self.died}: "
                    "look at its log"
                )
            if request.idle:
                break
        features = reply.content.get("supported_features") if reply else None
        self._features = frozenset(map(str, features) if isinstance(features, list) else ())

    async def ask(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        timeout: float = ANSWER_TIMEOUT,
    ) -> Mapping[str, Any]:
        """Content of the reply to a request that runs nothing."""
        request = self.connection.request(channel, kind, content, wait_idle=False)
        try:
            async with asyncio.timeout(timeout):
                reply = await request.wait()
        except TimeoutError:
            raise KernelFailed(
                f"expected an answer within {timeout:g} s: the kernel is busy, "
                "try again when it is idle"
            ) from None
        if reply is None:
            raise KernelFailed("expected an answer, and the kernel ended: it restarts by itself")
        if reply.size > MAX_ANSWER_BYTES:
            raise KernelFailed(f"expected {MAX_ANSWER_BYTES} bytes at most, got {reply.size}")
        return reply.content

    async def leave(self) -> None:
        """Stop watching; the process is left as it is."""
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        self.connection.close()

    async def ended(self, timeout: float) -> bool:
        """Wait for the end; whether it came."""
        done, _ = await asyncio.wait({self._watch}, timeout=timeout)
        return bool(done)

    async def _until_death(self) -> None:
        try:
            self.died.set_result(Death.of(await self.process.wait()))
            await self.connection.silence(LAST_WORDS, MAX_LAST_WORDS)
        finally:
            self.connection.close()
