"""Init's end of the control socket: packets in, a queue of packets out, descriptors attached.

A message that does not fit a packet travels in a memfd announced by the byte `@`.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from typing import Any

PACKET = 128 * 1024


class Channel:
    """The connection to the service: packets in, a queue of packets out."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.queue: deque[tuple[bytes, list[int]]] = deque()

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        data, fds, _, _ = socket.recv_fds(self.socket, PACKET + 1, 16, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        if data == b"@":
            body = fds.pop(0)
            data = os.pread(body, os.fstat(body).st_size, 0)
            os.close(body)
        return json.loads(data), fds

    def send(self, message: dict[str, Any], fds: list[int]) -> None:
        """Takes over `fds`: they are closed once sent."""
        data = json.dumps(message).encode()
        if len(data) > PACKET:
            body = os.memfd_create("answer")
            os.write(body, data)
            data, fds = b"@", [body, *fds]
        self.queue.append((data, fds))
        self.flush()

    def flush(self) -> None:
        while self.queue:
            data, fds = self.queue[0]
            try:
                socket.send_fds(self.socket, [data], fds)
            except BlockingIOError:
                return
            self.queue.popleft()
            close_all(fds)

    def close(self) -> None:
        for _, fds in self.queue:
            close_all(fds)
        self.socket.close()


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
