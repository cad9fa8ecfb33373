"""Jupyter frontends at a context: all of them hear its kernel, and each is answered what it asked.

A kernel never sees the ids that frontends give their requests, which may be anything; what comes
back from it is put under the header that the frontend had sent.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interpreter.execution import Execution
from interpreter.mailbox import Mailbox
from interpreter.models import CodeResult
from kernels import packets, wire
from kernels.errors import CellshellError
from kernels.packets import Packet

if TYPE_CHECKING:
    from interpreter.frontend_models import FrontendRun
    from kernels.kernel import Kernel
    from kernels.messages import Message

MOST_ASKED = 2000
"""Requests whose answers are still told apart."""
OUTPUTS = frozenset({"stream", "display_data", "update_display_data", "execute_result"})
"""What a frontend that reads slowly can do without."""


@dataclass(eq=False)
class Asked:
    """A request of a frontend."""

    mailbox: Mailbox
    channel: str
    header: bytes
    stops_on_error: bool = False
    execution: Execution | None = None
    answered: bool = False


class Attachments:
    """The frontends at one context."""

    def __init__(self) -> None:
        self._mailboxes: dict[Mailbox, None] = {}
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._input: tuple[Asked, Packet] | None = None
        """What a cell waits for: who asked for the cell has to type it."""
        self._kernel: Kernel | None = None
        self._wanted = False
        """Whether the kernel's end is."""

    def __len__(self) -> int:
        return len(self._mailboxes)

    def attach(self, client: str) -> Mailbox:
        """For a frontend that calls itself that; one that comes back is asked again."""
        mailbox = Mailbox(client)
        self._mailboxes[mailbox] = None
        if self._input and self._input[0].mailbox.client == client:
            mailbox.put(self._input[1], needed=True)
        return mailbox

    def detach(self, mailbox: Mailbox) -> None:
        self._mailboxes.pop(mailbox, None)

    def expect_end(self) -> None:
        """The kernel is about to end since somebody wants it to: nobody is told that it died."""
        self._wanted = True

    def close(self, reason: str) -> None:
        """There will be no kernel any more."""
        self._tell(packets.status("dead"))
        for mailbox in self._mailboxes:
            mailbox.close(reason)

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

    # Asking

    def forward(self, kernel: Kernel, mailbox: Mailbox, packet: Packet, channel: str) -> None:
        """Send a request on to the kernel, by a channel that may be another. Raises KernelFailed,
        ValueError."""
        header = packets.members(packet.header, "header")
        packets.members(packet.content, "content")
        id = secrets.token_hex(8)
        self._expect(id, Asked(mailbox, packet.channel, packet.header))
        _, *parts = packet.parts()
        kernel.forward(channel, [wire.pack({**header, "msg_id": id}), *parts], packet.buffers)

    def runs(self, execution: Execution, request: FrontendRun, mailbox: Mailbox) -> None:
        """An execution that was begun for a request."""
        header = request.header.encode()
        asked = Asked(mailbox, "shell", header, request.stop_on_error, execution)
        self._expect(execution.id, asked)
        execution.ended.add_done_callback(lambda _: self._ended(asked, execution))

    def resume(self, execution: Execution, request: FrontendRun) -> None:
        """One that an earlier service began: its frontend is expected to come back."""
        self.runs(execution, request, Mailbox(request.client))

    def refuse(self, mailbox: Mailbox, packet: Packet, error: CellshellError) -> None:
        """A request comes to nothing."""
        self.answer(mailbox, packet, _error(error.code, error.message))

    def answer(self, mailbox: Mailbox, packet: Packet, content: dict[str, object]) -> None:
        """In the kernel's place."""
        _, kind = packets.name_of(packets.members(packet.header, "header"))
        asked = Asked(mailbox, packet.channel, packet.header)
        self._answer(asked, kind.replace("_request", "_reply"), content)

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

    def _expect(self, id: str, asked: Asked) -> None:
        self._asked[id] = asked
        if len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)

    # Hearing

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

    def _abort(self, failed: Asked) -> None:
        """What the same frontend had asked for since, and waits."""
        for asked in list(self._asked.values()):
            execution = asked.execution
            if (
                execution
                and asked.mailbox.client == failed.mailbox.client
                and execution.state == "queued"
            ):
                execution.end_early(None)

    def _ended(self, asked: Asked, execution: Execution) -> None:
        """Where the kernel has not answered, or was never asked."""
        if asked.answered:
            return
        match execution.ending:
            case CellshellError() as error:
                content = _error(error.code, error.message)
            case CodeResult(error=None):
                content = {"status": "aborted"}
            case CodeResult(error=error) if error:
                content = _error(error.ename, error.evalue)
            case _:
                return  # the service ends, and the run goes on
        self._answer(asked, "execute_reply", content)

    def _answer(self, asked: Asked, kind: str, content: dict[str, object]) -> None:
        asked.answered = True
        if content["status"] == "error" and kind == "execute_reply":
            error = {name: value for name, value in content.items() if name != "status"}
            self._tell(packets.made("iopub", "error", error, asked.header))
        self._give(asked, packets.made(asked.channel, kind, content, asked.header))
        self._tell(packets.status("idle", asked.header))

    def _lost(self, kernel: Kernel) -> None:
        self._input = None
        if kernel is self._kernel and not self._wanted:
            self._tell(packets.status("restarting"))

    def _give(self, asked: Asked, packet: Packet) -> bool:
        """To whoever asked, or has come back since; whether there is anybody."""
        found = [asked.mailbox]
        if asked.mailbox not in self._mailboxes:
            found = [each for each in self._mailboxes if each.client == asked.mailbox.client]
        for mailbox in found:
            mailbox.put(packet, needed=True)
        return bool(found)

    def _tell(self, packet: Packet, *, needed: bool = True) -> None:
        for mailbox in self._mailboxes:
            mailbox.put(packet, needed=needed)


def _error(name: str, message: str) -> dict[str, object]:
    return {"status": "error", "ename": name, "evalue": message, "traceback": [message]}
