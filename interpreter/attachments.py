"""Jupyter frontends at what runs their cells: each is answered what it asked, and all hear it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interpreter.execution import Execution
from interpreter.mailbox import Mailbox
from kernels import packets
from kernels.errors import CellshellError
from kernels.packets import Packet

if TYPE_CHECKING:
    from interpreter.frontend_models import ByFrontend

MOST_ASKED = 2000
"""Requests whose answers are still told apart."""
Content = dict[str, object]


@dataclass(eq=False)
class Asked:
    """A request of a frontend."""

    mailbox: Mailbox
    channel: str
    header: bytes
    stops_on_error: bool = False
    execution: Execution | None = None
    answered: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether a cell runs, or is to run, for it: queues are bounded, so they are few."""
        return self.execution is not None and self.execution.state != "done"


class Attachments(ABC):
    """The frontends at one context or shell."""

    def __init__(self) -> None:
        self._mailboxes: dict[Mailbox, None] = {}
        self._asked: OrderedDict[str, Asked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._mailboxes)

    def attach(self, client: str) -> Mailbox:
        """For a frontend that calls itself that."""
        mailbox = Mailbox(client)
        self._mailboxes[mailbox] = None
        return mailbox

    def detach(self, mailbox: Mailbox) -> None:
        self._mailboxes.pop(mailbox, None)
        mailbox.abandon()

    def close(self, reason: str) -> None:
        """Nothing will be run any more."""
        self._tell(packets.status("dead"))
        for mailbox in self._mailboxes:
            mailbox.close(reason)

    # Asking

    def runs(self, execution: Execution, request: ByFrontend, mailbox: Mailbox) -> None:
        """An execution that was begun for a request."""
        header = request.header.encode()
        asked = Asked(mailbox, "shell", header, request.stop_on_error, execution)
        self._expect(execution.id, asked)
        execution.ended.add_done_callback(lambda _: self._ended(asked, execution))

    def resume(self, execution: Execution, request: ByFrontend) -> None:
        """One that an earlier service began: its frontend is expected to come back."""
        self.runs(execution, request, Mailbox(request.client))

    def refuse(self, mailbox: Mailbox, packet: Packet, error: CellshellError) -> None:
        """A request comes to nothing."""
        self.answer(mailbox, packet, failure(error.code, error.message))

    def answer(self, mailbox: Mailbox, packet: Packet, content: Content) -> None:
        """In the kernel's place."""
        _, kind = packets.name_of(packets.members(packet.header, "header"))
        asked = Asked(mailbox, packet.channel, packet.header)
        self._answer(asked, kind.replace("_request", "_reply"), content)

    def _expect(self, id: str, asked: Asked) -> None:
        self._asked[id] = asked
        if len(self._asked) > MOST_ASKED:
            old = (id for id, each in self._asked.items() if not each.is_waiting)
            self._asked.pop(next(old, ""), None)

    # Answering

    @abstractmethod
    def _outcome(self, asked: Asked, execution: Execution) -> Content | None:
        """What its asker is told of an execution that has ended; None: the service ends, and the
        run goes on."""

    def _ended(self, asked: Asked, execution: Execution) -> None:
        """Where nobody has answered yet."""
        if asked.answered:
            return
        content = self._outcome(asked, execution)
        if isinstance(error := execution.ending, CellshellError):
            content = failure(error.code, error.message)
        if content is not None:
            self._answer(asked, "execute_reply", content)

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

    def _answer(self, asked: Asked, kind: str, content: Content) -> None:
        asked.answered = True
        if content.get("status") == "error" and kind == "execute_reply":
            error = {name: content[name] for name in ("ename", "evalue", "traceback")}
            self._tell(packets.made("iopub", "error", error, asked.header))
        self._give(asked, packets.made(asked.channel, kind, content, asked.header))
        self._tell(packets.status("idle", asked.header))

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


def failure(name: str, message: str) -> Content:
    told = [f"{name}: {message}"]
    return {"status": "error", "ename": name, "evalue": message, "traceback": told}
