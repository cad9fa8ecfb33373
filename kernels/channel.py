"""One ZeroMQ socket of a kernel, read by the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zmq

RECEIVE_QUEUE = 2000
"""Messages ZeroMQ reads ahead. More wait in the kernel, at the cost of its box, not ours."""
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
BATCH_SECONDS = 0.005
LONG_SECONDS = 0.02
"""A batch that took so long is followed by a rest as long: no kernel gets all of the loop."""
RECONNECT_MS = 5

Receiver = Callable[[str, Sequence[bytes]], None]


class Channel:
    """Hands each message to `receive`, in order; after a batch, others get their turn."""

    def __init__(
        self,
        context: zmq.Context[Any],
        name: str,
        endpoint: str,
        identity: bytes,
        receive: Receiver,
    ) -> None:
        self._name = name
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._scheduled: asyncio.Handle | None = None
        self._socket = context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvhwm = RECEIVE_QUEUE
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.reconnect_ivl = RECONNECT_MS
        if name == "iopub":
            self._socket.subscribe(b"")
        else:
            self._socket.identity = identity
        self._socket.connect(endpoint)
        self._fd = self._socket.getsockopt(zmq.FD)
        self._loop.add_reader(self._fd, self._drain)
        self._look_again()

    def send(self, frames: Sequence[bytes]) -> None:
        """Raises zmq.Again when the kernel has not taken what was sent before."""
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        self._look_again()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._socket.close(linger=0)

    def _look_again(self) -> None:
        if self._scheduled is None and self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._scheduled = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        start, spent = self._loop.time(), 0.0
        while spent < BATCH_SECONDS:
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(self._name, frames)
            spent = self._loop.time() - start
        if spent > LONG_SECONDS:
            self._loop.remove_reader(self._fd)
            self._scheduled = self._loop.call_later(spent, self._resume)
        elif not self._socket.closed:
            self._scheduled = self._loop.call_soon(self._drain)

    def _resume(self) -> None:
        self._loop.add_reader(self._fd, self._drain)
        self._drain()
