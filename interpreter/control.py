"""The service's end of a box's control socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from interpreter.errors import BoxEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PACKET = 128 * 1024
MAX_FDS = 16


class Control:
    """Requests to init and their answers, in any order, with descriptors attached.

    `on_exit(pid, code)` is called for each process init saw end, `on_close()` once when the
    connection is gone. What init says is bounded by the packet size, but the box's code may have
    taken init over: nothing here trusts more than types.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_exit: Callable[[int, int], None],
        on_close: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._on_exit = on_exit
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[tuple[Any, list[int]]]] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._number = 0
        self._loop.add_reader(connection, self._readable)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    async def request(
        self, op: str, fds: Sequence[int] = (), **arguments: Any
    ) -> tuple[Any, list[int]]:
        """Ask init; returns its result and the descriptors it handed out.

        Raises OSError with the errno the operation met inside the box, and BoxEnded.
        """
        if self.closed:
            raise BoxEnded()
        self._number += 1
        number = self._number
        body = json.dumps({"id": number, "op": op, **arguments}).encode()
        answer = self._answers[number] = self._loop.create_future()
        self._send(body, [os.dup(fd) for fd in fds])
        try:
            result, fds_handed = await answer
            return result, fds_handed
        except asyncio.CancelledError:
            answer.add_done_callback(_discard)
            raise

    def close(self) -> None:
        if self.closed:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BoxEnded())
        self._answers.clear()
        self._on_close()

    def _send(self, body: bytes, fds: list[int]) -> None:
        if len(body) > PACKET:
            memory = os.memfd_create("request")
            with os.fdopen(os.dup(memory), "wb") as file:
                file.write(body)
            body, fds = b"@", [memory, *fds]
        self._outgoing.append((body, fds))
        self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            body, fds = self._outgoing[0]
            try:
                socket.send_fds(self._socket, [body], fds)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                self.close()
                return
            self._outgoing.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._socket, PACKET + 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.close()
                return
            self._receive(data, fds)

    def _receive(self, data: bytes, fds: list[int]) -> None:
        try:
            if data == b"@":
                memory = fds.pop(0)
                data = os.pread(memory, min(os.fstat(memory).st_size, 1 << 26), 0)
                os.close(memory)
            message = json.loads(data)
            if "exit" in message:
                self._on_exit(int(message["exit"]), int(message["code"]))
                return
            answer = self._answers.pop(message["id"], None)
        except (ValueError, KeyError, TypeError, IndexError, OSError, OverflowError):
            _close_all(fds)
            self.close()
            return
        if answer is None or answer.done():
            _close_all(fds)
        elif "errno" in message:
            answer.set_exception(OSError(int(message["errno"]), str(message["message"])))
        else:
            answer.set_result((message["result"], fds))


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _discard(answer: asyncio.Future[tuple[Any, list[int]]]) -> None:
    """An answer that came after its asker had gone: its descriptors would leak."""
    if not answer.cancelled() and answer.exception() is None:
        _close_all(answer.result()[1])
