"""A Jupyter frontend at a kernel: what it asks is done here, sent on, or queued as any run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from interpreter.attachments import Attachments
from interpreter.errors import InvalidRequest
from interpreter.execution import Execution
from interpreter.frontend_models import ByFrontend, CellContent
from kernels import packets
from kernels.errors import CellshellError
from kernels.packets import Packet

MOST_CODE = 16 * 1024 * 1024
Shutdown = Callable[[], Awaitable[None]]
Begun = tuple[Execution, ByFrontend]


class Frontend(ABC):
    """What it is told comes out of its mailbox, until it is detached."""

    def __init__(self, attachments: Attachments, client: str, on_shutdown: Shutdown) -> None:
        """`client` is what it calls itself; `on_shutdown` is for whoever asks for the kernel's end,
        who may not be the one to decide."""
        self._attachments = attachments
        self._on_shutdown = on_shutdown
        self.mailbox = attachments.attach(client)

    def detach(self) -> None:
        self._attachments.detach(self.mailbox)

    async def say(self, packet: Packet) -> None:
        """Raises InvalidRequest for what is no message; of what else goes wrong it is told."""
        try:
            _, kind = packets.name_of(packets.members(packet.header, "header"))
            if packet.channel not in packets.CHANNELS:
                raise ValueError(f"{packet.channel!r:.40} is no channel of a kernel")
            await self._do(kind, packet)
        except ValueError as error:
            raise InvalidRequest(f"expected a Jupyter message: {error}") from None
        except CellshellError as error:
            self._attachments.refuse(self.mailbox, packet, error)

    @abstractmethod
    async def _begin(self, cell: CellContent, said: dict[str, Any]) -> Begun:
        """Queue a cell; `said` are the fields of a `ByFrontend`."""

    @abstractmethod
    async def _interrupt(self) -> None: ...

    @abstractmethod
    async def _restart(self) -> None: ...

    @abstractmethod
    def _type_in(self, packet: Packet) -> None:
        """The answer to a question of a cell."""

    @abstractmethod
    async def _other(self, kind: str, packet: Packet) -> None:
        """What else kernels are asked."""

    async def _do(self, kind: str, packet: Packet) -> None:
        match packet.channel, kind:
            case "iopub", _:
                return
            case "stdin", _:
                self._type_in(packet)
            case "shell", "execute_request":
                await self._run(packet)
            case _, "interrupt_request":
                await self._interrupt()
                self._attachments.answer(self.mailbox, packet, {"status": "ok"})
            case _, "shutdown_request":
                await self._shut_down(packet)
            case _:
                await self._other(kind, packet)

    async def _run(self, packet: Packet) -> None:
        cell = _cell(packet)
        said = {
            "options": cell.options(),
            "cell": packets.members(packet.metadata, "metadata"),
            "client": self.mailbox.client,
            "header": packet.header.decode("utf-8", "replace"),
            "stop_on_error": cell.stop_on_error,
        }
        execution, request = await self._begin(cell, said)
        self._attachments.runs(execution, request, self.mailbox)

    async def _shut_down(self, packet: Packet) -> None:
        restart = packets.members(packet.content, "content").get("restart") is True
        self._attachments.answer(self.mailbox, packet, {"status": "ok", "restart": restart})
        await (self._restart() if restart else self._on_shutdown())


def _cell(packet: Packet) -> CellContent:
    try:
        cell = CellContent.model_validate(packets.members(packet.content, "content"))
    except ValidationError as error:
        raise InvalidRequest(f"expected the content of an execute_request: {error}") from None
    if len(cell.code) > MOST_CODE:
        raise InvalidRequest(f"expected a cell of {MOST_CODE} characters at most: use a file")
    if "\0" in cell.code:
        raise InvalidRequest("expected code without NUL")
    return cell
