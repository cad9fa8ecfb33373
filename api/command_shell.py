"""`cellshell shell`: the terminal of a session, in this terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import termios
import tty
from collections.abc import Iterable, Iterator
from typing import Annotated
from urllib.parse import urlencode

import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from api.command_connection import (
    DEFAULT_URL,
    Address,
    SandboxId,
    SessionId,
    Token,
    Url,
    finish,
    say,
    show,
)
from interpreter.client_problems import problem
from interpreter.errors import CellshellError, InvalidRequest, ServiceUnreachable

DETACH = b"\x1d"
"""Ctrl-]: leaves the terminal running."""
MAX_MESSAGE = 16 << 20
PIECE = 64 << 10

TerminalId = Annotated[str, typer.Option("--id", help="Which terminal of the session.")]


def shell(
    id: TerminalId = "default",
    sandbox: SandboxId = "default",
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Open the session's terminal here. Ctrl-] detaches; `exit` ends it."""
    finish(_shell(Address(url, token, sandbox, session), id))


async def _shell(address: Address, id: str) -> int:
    if not (os.isatty(0) and os.isatty(1)):
        raise InvalidRequest("expected a terminal on standard input and output; use `exec` instead")
    async with address.open():
        pass
    try:
        async with connect(
            _url(address, id),
            additional_headers=_headers(address),
            max_size=MAX_MESSAGE,
            proxy=None,
        ) as socket:
            with _raw_terminal():
                status = await Attachment(socket).run()
    except InvalidStatus as error:
        raise _refused(error) from None
    except (OSError, WebSocketException) as error:
        raise ServiceUnreachable(
            f"expected a terminal at {address.url}, got {error or type(error).__name__}"
        ) from None
    return status


class Attachment:
    """Bytes and window sizes between this terminal and the other end."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._outgoing: asyncio.Queue[bytes | str | None] = asyncio.Queue()

    async def run(self) -> int:
        """Until the other end exits or the person detaches; the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_reader(0, self._typed)
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(0)
            loop.remove_signal_handler(signal.SIGWINCH)
            sending.cancel()
            receiving.cancel()
            ends = await asyncio.gather(receiving, sending, return_exceptions=True)
        return _status(ends)

    async def _receive(self) -> int:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                if isinstance(message, bytes):
                    show(message)
                    continue
                status = _told(message)
                if status is not None:
                    return status
        raise ServiceUnreachable(
            "expected the terminal to say that it ended, but the connection was lost; it may "
            "still run: attach again"
        )

    async def _send(self) -> int:
        with contextlib.suppress(ConnectionClosed):
            while (data := await self._outgoing.get()) is not None:
                await self._socket.send(data)
            say("detached; the terminal runs on")
            return 0
        return await asyncio.Future()

    def _typed(self) -> None:
        data = os.read(0, PIECE)
        self._outgoing.put_nowait(None if data in (b"", DETACH) else data)

    def _resized(self) -> None:
        cols, rows = os.get_terminal_size(1)
        self._outgoing.put_nowait(json.dumps({"type": "resize", "cols": cols, "rows": rows}))


def _status(ends: Iterable[int | BaseException]) -> int:
    for end in ends:
        if isinstance(end, int):
            return end
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
            raise end
    raise asyncio.CancelledError


def _told(text: str) -> int | None:
    """What a text frame says: the exit status, when it is that."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise CellshellError(f"expected a JSON object from the terminal, got {text!r:.100}")
    if message.get("type") == "error":
        say(str(message.get("message")))
    if message.get("type") != "exit":
        return None
    code = message.get("code")
    return code & 0xFF if isinstance(code, int) else 1


def _url(address: Address, id: str) -> str:
    cols, rows = os.get_terminal_size(1)
    query = urlencode({"id": id, "cols": max(cols, 1), "rows": max(rows, 1)})
    base = "ws" + address.url.removeprefix("http").rstrip("/")
    return f"{base}/v1/sandboxes/{address.sandbox}/sessions/{address.session}/terminal?{query}"


def _headers(address: Address) -> dict[str, str]:
    return {"Authorization": f"Bearer {address.token}"} if address.token else {}


def _refused(error: InvalidStatus) -> CellshellError:
    try:
        document = json.loads(error.response.body or b"")
    except (ValueError, RecursionError):
        document = {}
    if not isinstance(document, dict) or "code" not in document:
        document = {"detail": f"the service refused the terminal: {error}"}
    return problem(document, error.response.status_code)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
