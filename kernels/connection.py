"""The sockets to one kernel: requests go out, replies and output come in, nothing ever waits.

ZeroMQ's descriptors are edge-triggered: one is readable once for any number of messages, and a
send may swallow that edge. So a channel is read until it is empty, in batches, and looked at again
after each send.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import zmq
from jupyter_client.session import DELIM, Session

from kernels import wire
from kernels.channel import Channel
from kernels.endpoints import NEEDED, Endpoints
from kernels.errors import KernelFailed
from kernels.messages import Message
from kernels.replay import Replay
from kernels.request import IDLE_GRACE, Request

logger = logging.getLogger(__name__)

LATE_REQUESTS = 1000
"""Finished requests whose late output is still told apart."""
FOLLOW_GRACE = 10.0
"""Deno answers others while a cell awaits something: an answer does not show that the cell is over.
Whether it is, nobody can tell; after so long it is taken to be."""
MAX_ID = 256

Listener = Callable[[Message], None]
Watcher = Callable[[Message], bool]
"""Whether the message is taken, so that nobody else need answer it."""


class KernelConnection:
    """All channels of one kernel. Output is read from the start until `close`, asked for or not."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoints: Endpoints,
        *,
        key: bytes,
        session: str,
        on_other: Listener | None = None,
        holding: bool = False,
    ) -> None:
        """`holding` keeps output back until `catch_up`, which has what came before it."""
        self.seen = 0
        """Number of the output that is being handed on, or was last, where a kernel counts it."""
        self.dropped = 0
        """Messages that were not signed, not well formed or of no use."""
        self.closed = False
        self._held: list[Message] | None = [] if holding else None
        self.watcher: Watcher | None = None
        """Hears all but what only the service itself has asked for."""
        self._on_other = on_other
        self._came = asyncio.Event()
        self._requests: dict[str, Request] = {}
        self._late: OrderedDict[str, tuple[Listener | None, bool]] = OrderedDict()
        self.endpoints = endpoints
        self.session = Session(
            session=session, key=key, digest_history_size=0, pack=wire.pack, unpack=wire.unpack
        )
        self._channels = {
            name: Channel(context, name, endpoints[name], session.encode(), self._receive)
            for name in NEEDED
        }

    def request(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        *,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_message: Listener | None = None,
        on_late: Listener | None = None,
        wait_idle: bool = True,
        grace: float = IDLE_GRACE,
        shown: bool = False,
    ) -> Request:
        """Send a request; its `done` completes with its reply, after its last output."""
        if self.closed:
            raise KernelFailed("expected a running kernel, and it has ended: restart it")
        message = self.session.msg(kind, dict(content), metadata=dict(metadata or {}))
        # Not by the session's count: an earlier connection to the kernel may have counted as far.
        id = message["header"]["msg_id"] = id or secrets.token_hex(8)
        request = Request(id, channel, on_message, on_late, wait_idle, grace, shown)
        self._expect(request)
        try:
            self._send(channel, self.session.serialize(message))
        except KernelFailed:
            request.lose()
            raise
        return request

    def forward(self, channel: str, parts: Sequence[bytes], buffers: Sequence[bytes]) -> None:
        """Send what somebody else has written: header, parent header, metadata and content.

        What comes of it is for the `watcher`.
        """
        if self.closed:
            raise KernelFailed("expected a running kernel, and it has ended: restart it")
        self._send(channel, [DELIM, self.session.sign(list(parts)), *parts, *buffers])

    def _send(self, channel: str, frames: Sequence[bytes]) -> None:
        try:
            self._channels[channel].send(frames)
        except zmq.Again:
            raise KernelFailed(
                "expected a kernel that takes requests, and this one takes none any more: "
                "interrupt or restart it"
            ) from None

    async def catch_up(self, after: int | None) -> Replay:
        """Hand on the output that came after number `after` and before this connection, in order.

        None: the kernel keeps nothing, and only what came since is handed on.
        """
        replay = Replay()
        if after is not None:
            self.seen = after
            request = self.request("control", "replay_request", {"after": after}, wait_idle=False)
            replay = Replay.of(await request.wait())
        held, self._held = self._held or [], None
        for channel, frames in replay.messages:
            self._receive(channel, frames)
        for message in held:
            if message.number is None or message.number > self.seen:
                self._deliver(message)
        return replay

    def follow(self, id: str, on_message: Listener, on_late: Listener) -> Request:
        """Expect the rest of a request that was sent over an earlier connection."""
        request = Request(id, "shell", on_message, on_late, wait_idle=True, shown=True)
        self._expect(request)
        self._probe(request, FOLLOW_GRACE)
        return request

    async def silence(self, seconds: float, timeout: float) -> None:
        """Return when nothing was asked, or nothing has come for `seconds`, or after `timeout`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._requests:
                    self._came.clear()
                    async with asyncio.timeout(seconds):
                        await self._came.wait()

    def lose(self) -> None:
        """The kernel has ended: nothing that is still waited for will come."""
        for request in list(self._requests.values()):
            request.lose()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for channel in self._channels.values():
                channel.close()
            self.endpoints.close()
            self.lose()

    def _expect(self, request: Request) -> None:
        request.on_stray_idle = lambda: self._probe(request)
        self._requests[request.id] = request
        request.done.add_done_callback(lambda _: self._finish(request))

    def _finish(self, request: Request) -> None:
        self._requests.pop(request.id, None)
        request.let_go()
        self._late[request.id] = (request.on_late, request.shown)
        if len(self._late) > LATE_REQUESTS:
            self._late.popitem(last=False)

    def _probe(self, request: Request, grace: float = 0) -> None:
        """No reply came: once a later request is answered, it will not come any more."""
        if not self.closed and not request.done.done():
            probe = self.request(request.channel, "kernel_info_request", {}, wait_idle=False)
            probe.done.add_done_callback(lambda _: request.lose_after(grace))

    def _receive(self, channel: str, frames: Sequence[bytes]) -> None:
        self._came.set()
        message = self._read(channel, frames)
        if message is None:
            self.dropped += 1
        elif self._held is not None and self._is_held(message):
            self._held.append(message)
        else:
            self._deliver(message)

    def _is_held(self, message: Message) -> bool:
        request = self._requests.get(message.parent)
        return message.channel == "iopub" and (request is None or request.channel == "shell")

    def _deliver(self, message: Message) -> None:
        if message.number is not None:
            self.seen = message.number
        taken = self._heard(message, self._watch)
        self._heard(message, lambda message: self._dispatch(message, taken))

    def _heard(self, message: Message, listener: Callable[[Message], bool]) -> bool:
        try:
            return listener(message)
        except Exception:
            # A listener is ours and may have a bug; the kernel's other output must go on.
            logger.exception("a listener for %s failed", message.type)
            return False

    def _watch(self, message: Message) -> bool:
        if self.watcher is None:
            return False
        request = self._requests.get(message.parent)
        late = self._late.get(message.parent, (None, True))
        return (late[1] if request is None else request.shown) and self.watcher(message)

    def _read(self, channel: str, frames: Sequence[bytes]) -> Message | None:
        try:
            at = list(frames[:8]).index(DELIM)
            signature, *signed = frames[at + 1 : at + 6]
            prefix = frames[at - 1] if at else b""
            if len(signed) != 4 or not hmac.compare_digest(self.session.sign(signed), signature):
                return None
            header, parent, metadata, content = map(self.session.unpack, signed)
            return Message(
                channel=channel,
                type=_name(header["msg_type"]),
                id=_name(header["msg_id"]),
                parent=_name(parent.get("msg_id", "")),
                content={**content},
                metadata={**metadata},
                size=sum(map(len, signed)),
                number=int(prefix[1:20]) if prefix[:1] == b"#" else None,
                buffers=frames[at + 6 :],
                parts=signed,
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def _dispatch(self, message: Message, taken: bool) -> bool:
        request = self._requests.get(message.parent)
        if message.channel == "iopub":
            self._output(message, request)
        elif message.type == "input_request" and not taken:
            self._refuse_input(message)
        elif request is not None and request.channel == message.channel:
            if message.type.endswith("_reply"):
                request.reply_came(message)
        elif not taken:
            self.dropped += 1
        return True

    def _output(self, message: Message, request: Request | None) -> None:
        listener = self._on_other if request is None else request.on_message
        if request is None and message.parent in self._late:
            listener, _ = self._late[message.parent]
        if listener is not None:
            listener(message)
        if request is not None and _is_idle(message):
            request.idle_came()

    def _refuse_input(self, message: Message) -> None:
        """Requests say that there is no input; a kernel that asks all the same gets none."""
        reply = self.session.msg(
            "input_reply", {"value": "", "status": "ok"}, parent={"header": {"msg_id": message.id}}
        )
        self._channels["stdin"].send(self.session.serialize(reply))


def _is_idle(message: Message) -> bool:
    return message.type == "status" and message.content.get("execution_state") == "idle"


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise ValueError("not a name")
    return value
