"""The service, as the programs that work on files see it: a stream socket on descriptor 0.

Frames of a u32 length and JSON go both ways. Whatever is asked for is answered at last by
`{"ok": result}`, by `{"errno", "path"}` or by `{"code", "message"}`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_DUMPABLE = 4
MAX_REQUEST = 1 << 20
BEAT = 5.0
OWN = re.compile(r"\.cellshell-[0-9a-f]{16}~")
"""What is being built has such a name, beside its place; it is neither listed nor watched."""

Message = dict[str, Any]


class Gone(Exception):
    """The service hung up."""


class Refused(Exception):
    """Refused for a reason of ours; `code` is one of the service's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Peer:
    """The service's end of the socket."""

    def __init__(self) -> None:
        self.connection = socket.socket(fileno=0)
        self.poll = select.poll()
        self.poll.register(self.connection, select.POLLRDHUP)
        self.last = time.monotonic()

    def receive(self) -> Message:
        size = struct.unpack(">I", self._exactly(4))[0]
        if size > MAX_REQUEST:
            raise Gone
        message: Message = json.loads(self._exactly(size))
        return message

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                raise Gone
            data += piece
        return data

    def send(self, *messages: Message) -> None:
        frames = [json.dumps(message).encode() for message in messages]
        try:
            self.connection.sendall(b"".join(struct.pack(">I", len(f)) + f for f in frames))
        except OSError:
            raise Gone from None
        self.last = time.monotonic()

    def beat(self) -> None:
        """Called often by what takes long: shows life, and notices a service that went away."""
        if self.poll.poll(0):
            raise Gone
        if time.monotonic() - self.last > BEAT:
            self.send({"beat": True})

    def answer(self, work: Callable[[], Message]) -> None:
        """Send what `work` returns, or what stood in its way."""
        try:
            message: Message = {"ok": work()}
        except Refused as refused:
            message = {"code": refused.code, "message": str(refused)}
        except OSError as error:
            path = error.filename if isinstance(error.filename, str) else None
            message = {"errno": error.errno or errno.EIO, "path": path}
        except MemoryError:
            message = {"errno": errno.ENOMEM, "path": None}
        self.send(message)


def harden() -> None:
    """Out of reach of the box's other processes, which have the same uid."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o022)
