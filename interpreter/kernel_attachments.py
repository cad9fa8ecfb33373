"""Jupyter frontends at a context: all of them hear its kernel.

A kernel never sees the ids that frontends give their requests, which may be anything; what comes
back from it is put under the header that the frontend had sent.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from interpreter.attachments import Asked, Attachments, Content, failure
from interpreter.execution import Execution
from interpreter.mailbox import Mailbox
from interpreter.models import CodeResult
from kernels import packets, wire
from kernels.packets import Packet

if TYPE_CHECKING:
    from kernels.kernel import Kernel
    from kernels.messages import Message

OUTPUTS = frozenset({"stream", "display_data", "update_display_data", "execute_result"})
"""What a frontend that reads slowly can do without."""


class KernelAttachments(Attachments):
    """The frontends at one context."""

    def __init__(self) -> None:
        super().__init__()
        self._input: tuple[Asked, Packet] | None = None
        """What a cell waits for: who asked for the cell has to type it."""
        self._kernel: Kernel | None = None
        self._wanted = False
        """Whether the kernel's end is."""

    def attach(self, client: str) -> Mailbox:
        """One that comes back is asked again."""
        mailbox = super().attach(client)
        if self._input and self._input[0].mailbox.client == client:
            mailbox.put(self._input[1], needed=True)
        return mailbox

    def expect_end(self) -> None:
        """The kernel is about to end since somebody wants it to: nobody is told that it died."""
        self._wanted = True

    def follow(self, kernel: Kernel) -> None:
        """This is the kernel now."""
        if kernel is self._kernel:
            return
        again, self._kernel = self._kernel is not None, kernel
        self._wanted = False
        kernel.watch(self._heard)
        kernel.died.add_done_callback(lambda _: self._lost(kernel))
        if again:
            self._tell(packets.status("starting"))
            self._tell(packets.status("idle"))

    def forward(self, kernel: Kernel, mailbox: Mailbox, packet: Packet, channel: str) -> None:
        """Send a request on to the kernel, by a channel that may be another. Raises KernelFailed,
        ValueError."""
        header = packets.members(packet.header, "header")
        packets.members(packet.content, "content")
        id = secrets.token_hex(8)
        self._expect(id, Asked(mailbox, packet.channel, packet.header))
        _, *parts = packet.parts()
        kernel.forward(channel, [wire.pack({**header, "msg_id": id}), *parts], packet.buffers)

    def type_in(self, mailbox: Mailbox, packet: Packet) -> None:
        """The answer to a question of a cell; nobody else's counts. Raises KernelFailed."""
        if (
            self._input is None
            or self._input[0].mailbox.client != mailbox.client
            or self._kernel is None
        ):
            return
        packets.members(packet.content, "content")
        self._input = None
        self._kernel.forward("stdin", packet.parts())

    def _heard(self, message: Message) -> bool:
        asked = self._asked.get(message.parent)
        if message.channel == "iopub":
            header = asked.header if asked else None
            self._tell(packets.heard(message, header), needed=message.type not in OUTPUTS)
            return False
        if asked is None:
            return False
        packet = packets.heard(message, asked.header, asked.channel)
        if message.type == "input_request":
            packet = packets.heard(message, asked.header)
            self._input = (asked, packet)
        elif asked.execution:
            self._input = None
            asked.answered = True
            if asked.stops_on_error and message.content.get("status") == "error":
                self._abort(asked)
        return self._give(asked, packet)

    def _outcome(self, asked: Asked, execution: Execution) -> Content | None:
        """The kernel has not answered, or was never asked."""
        if not isinstance(result := execution.ending, CodeResult):
            return None
        if result.error is None:
            return {"status": "aborted"}
        return failure(result.error.ename, result.error.evalue)

    def _lost(self, kernel: Kernel) -> None:
        self._input = None
        if kernel is self._kernel and not self._wanted:
            self._tell(packets.status("restarting"))
