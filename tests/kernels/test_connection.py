"""The connection, against the far end of its sockets: what a kernel may do, and one may not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from kernels.connection import KernelConnection
from kernels.endpoints import CHANNELS, Endpoints
from kernels.errors import KernelFailed
from kernels.messages import Message

KEY = b"secret"


class FarEnd:
    """The kernel's side of the sockets, which says what a test lets it say."""

    def __init__(self, context: zmq.Context[Any], prefix: Path) -> None:
        self.session = Session(key=KEY)
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        for name, number in CHANNELS.items():
            kind = zmq.XPUB if name == "iopub" else zmq.ROUTER
            socket = context.socket(kind, socket_class=zmq.asyncio.Socket)
            socket.linger = 0
            socket.sndhwm = 0
            socket.bind(f"ipc://{prefix}-{number}")
            self._sockets[name] = socket

    async def subscribed(self) -> None:
        await self._sockets["iopub"].recv()

    async def receive(self, channel: str = "shell") -> tuple[list[bytes], dict[str, Any]]:
        idents, frames = self.session.feed_identities(await self._sockets[channel].recv_multipart())
        return idents, self.session.deserialize(frames)

    def say(self, kind: str, parent: dict[str, Any] | None = None, **content: Any) -> None:
        self.session.send(self._sockets["iopub"], kind, content, parent=parent, ident=b"topic")

    def say_raw(self, *frames: bytes) -> None:
        zmq.Socket.shadow(self._sockets["iopub"].underlying).send_multipart(frames)

    def reply(self, ident: list[bytes], parent: dict[str, Any], channel: str = "shell") -> None:
        kind = parent["msg_type"].replace("_request", "_reply")
        content = {"status": "ok"}
        self.session.send(self._sockets[channel], kind, content, parent=parent, ident=ident)

    def ask_input(self, ident: list[bytes], parent: dict[str, Any]) -> None:
        content = {"prompt": "?", "password": False}
        self.session.send(self._sockets["stdin"], "input_request", content, parent, ident)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()


class Heard(list[Message]):
    """Messages, and a way to wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._grown = asyncio.Event()

    def __call__(self, message: Message) -> None:
        self.append(message)
        self._grown.set()

    async def until(self, kind: str) -> Message:
        while not (found := [message for message in self if message.type == kind]):
            self._grown.clear()
            await self._grown.wait()
        return found[0]


@pytest.fixture
async def far(
    zmq_context: zmq.Context[Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[FarEnd, Path]]:
    prefix = tmp_path_factory.mktemp("z") / "k"
    far = FarEnd(zmq_context, prefix)
    yield far, prefix
    far.close()


@pytest.fixture
def other() -> Heard:
    return Heard()


@pytest.fixture
async def ends(
    far: tuple[FarEnd, Path], zmq_context: zmq.Context[Any], other: Heard
) -> AsyncIterator[tuple[KernelConnection, FarEnd]]:
    endpoints = Endpoints()
    await endpoints.open(far[1])
    connection = KernelConnection(zmq_context, endpoints, key=KEY, session="near", on_other=other)
    await far[0].subscribed()
    yield connection, far[0]
    connection.close()


Ends = tuple[KernelConnection, FarEnd]


async def test_a_request_is_done_when_reply_and_idle_are_there(ends: Ends) -> None:
    connection, far = ends
    heard = Heard()
    request = connection.request("shell", "execute_request", {}, on_message=heard)
    ident, parent = await far.receive()
    far.reply(ident, parent)
    far.say("stream", parent, name="stdout", text="x")
    await heard.until("stream")
    assert not request.done.done()
    far.say("status", parent, execution_state="idle")
    reply = await request.wait()
    assert reply is not None and reply.content == {"status": "ok"}


async def test_idle_may_come_first(ends: Ends) -> None:
    connection, far = ends
    heard = Heard()
    request = connection.request("shell", "execute_request", {}, on_message=heard)
    ident, parent = await far.receive()
    far.say("status", parent, execution_state="idle")
    await heard.until("status")
    far.reply(ident, parent)
    assert await request.wait() is not None


async def test_an_idle_that_never_comes_is_waited_for_a_while(ends: Ends) -> None:
    connection, far = ends
    request = connection.request("shell", "execute_request", {}, grace=0.05)
    far.reply(*await far.receive())
    assert await request.wait() is not None
    assert not request.idle


async def test_a_reply_that_was_lost_is_noticed_by_the_next(ends: Ends) -> None:
    connection, far = ends
    request = connection.request("shell", "execute_request", {}, grace=0.05)
    _, parent = await far.receive()
    far.say("status", parent, execution_state="idle")
    ident, probe = await far.receive()
    assert probe["msg_type"] == "kernel_info_request"
    assert not request.done.done()
    far.reply(ident, probe)
    assert await request.wait() is None


async def test_output_after_the_end_is_late_and_others_is_other(ends: Ends, other: Heard) -> None:
    connection, far = ends
    late = Heard()
    request = connection.request("shell", "execute_request", {}, on_late=late)
    ident, parent = await far.receive()
    far.reply(ident, parent)
    far.say("status", parent, execution_state="idle")
    await request.wait()
    far.say("stream", parent, name="stdout", text="late")
    far.say("stream", None, name="stdout", text="nobody's")
    assert (await late.until("stream")).content["text"] == "late"
    assert (await other.until("stream")).content["text"] == "nobody's"


async def test_what_is_not_signed_or_not_well_formed_is_dropped(ends: Ends, other: Heard) -> None:
    connection, far = ends
    good = far.session.serialize(far.session.msg("stream", {"name": "stdout", "text": "x"}))
    wrong = Session(key=b"wrong").serialize(far.session.msg("stream", {}))
    lists = [b"[]"] * 4
    odd = [
        [b"", b"<IDS|MSG>"],
        [b"no delimiter"] * 10,
        [b"<IDS|MSG>", b"", *good[2:]],
        [b"<IDS|MSG>", *good[1:4]],
        wrong,
        [b"<IDS|MSG>", far.session.sign(lists), *lists],
        *(signed(far, header) for header in ODD_HEADERS),
    ]
    for frames in odd:
        far.say_raw(*frames)
    far.say("stream", None, name="stdout", text="still here")
    await other.until("stream")
    assert connection.dropped == len(odd)
    assert len(other) == 1


ODD_HEADERS = [
    b"{}",
    b"null",
    b"\xff\xfe",
    b"{" * 50_000,
    b'{"msg_id": 1, "msg_type": "stream"}',
    b'{"msg_id": "x", "msg_type": ["stream"]}',
    b'{"msg_id": "' + b"x" * 100_000 + b'", "msg_type": "stream"}',
]


def signed(far: FarEnd, header: bytes) -> list[bytes]:
    parts = [header, b"{}", b"{}", b"{}"]
    return [b"topic", b"<IDS|MSG>", far.session.sign(parts), *parts]


async def test_input_is_refused_at_once(ends: Ends) -> None:
    connection, far = ends
    connection.request("shell", "execute_request", {}, wait_idle=False)
    connection._channels["stdin"].send([b""])  # ROUTER learns the identity
    await far._sockets["stdin"].recv_multipart()
    ident, parent = await far.receive()
    far.ask_input(ident, parent)
    _, answer = await far.receive("stdin")
    assert (answer["msg_type"], answer["content"]["value"]) == ("input_reply", "")


async def test_a_flood_is_drained_while_others_run(ends: Ends, other: Heard) -> None:
    _, far = ends
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    spinning = asyncio.create_task(spin())
    for number in range(5000):
        far.say("stream", None, name="stdout", text=str(number))
        if number % 500 == 0:
            await asyncio.sleep(0)
    far.say("end")
    await other.until("end")
    spinning.cancel()
    told = [int(message.content["text"]) for message in other if message.type == "stream"]
    assert told == sorted(set(told))
    assert turns > 10


async def test_a_listener_that_fails_stops_nothing(
    ends: Ends, other: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    connection, far = ends

    def fail(message: Message) -> None:
        raise RuntimeError("a bug")

    connection.request("shell", "execute_request", {}, on_message=fail)
    _, parent = await far.receive()
    far.say("stream", parent, name="stdout", text="x")
    far.say("end")
    await other.until("end")
    assert "a listener for stream failed" in caplog.text


async def test_closing_ends_every_request_and_descriptor(ends: Ends, other: Heard) -> None:
    connection, _ = ends
    before = set(os.listdir("/proc/self/fd"))
    requests = [connection.request("shell", "execute_request", {}) for _ in range(3)]
    connection.close()
    connection.close()
    assert [await request.wait() for request in requests] == [None] * 3
    assert len(set(os.listdir("/proc/self/fd"))) < len(before)
    with pytest.raises(KernelFailed):
        connection.request("shell", "execute_request", {})


async def test_a_caller_that_is_cancelled_leaves_the_request(ends: Ends) -> None:
    connection, far = ends
    late = Heard()
    request = connection.request("shell", "execute_request", {}, on_late=late)
    waiting = asyncio.create_task(request.wait())
    ident, parent = await far.receive()
    waiting.cancel()
    await asyncio.wait({waiting})
    request.abandon()
    far.say("stream", parent, name="stdout", text="x")
    await late.until("stream")
    far.reply(ident, parent)
    far.say("status", parent, execution_state="idle")
    assert await request.wait() is not None
