"""A Jupyter frontend at a context: what it asks is done here, sent on, or queued as any run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from interpreter.contexts import Context
from interpreter.errors import InvalidRequest
from interpreter.frontend_models import CellContent, FrontendRun
from interpreter.sessions import Session
from kernels import packets
from kernels.errors import CellshellError
from kernels.packets import Packet

ASIDE = frozenset({"complete_request", "inspect_request", "kernel_info_request"})
"""Answered while a cell runs, by a kernel that can."""
MOST_CODE = 16 * 1024 * 1024


class Frontend:
    """What it is told comes out of its mailbox, until it is detached."""

    def __init__(
        self,
        session: Session,
        context: Context,
        client: str,
        on_shutdown: Callable[[], Awaitable[None]],
    ) -> None:
        """`client` is what it calls itself; `on_shutdown` is for whoever asks for the kernel's end,
        who may not be the one to decide."""
        self._session = session
        self._context = context
        self._attachments = context.attachments
        self._on_shutdown = on_shutdown
        self.mailbox = self._attachments.attach(client)

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

    async def _do(self, kind: str, packet: Packet) -> None:
        match packet.channel, kind:
            case "iopub", _:
                return
            case "stdin", _:
                self._attachments.type_in(self.mailbox, packet)
            case "shell", "execute_request":
                await self._run(packet)
            case _, "interrupt_request":
                await self._context.interrupt()
                self._attachments.answer(self.mailbox, packet, {"status": "ok"})
            case _, "shutdown_request":
                await self._shut_down(packet)
            case _:
                await self._forward(kind, packet)

    async def _run(self, packet: Packet) -> None:
        cell = _cell(packet)
        request = FrontendRun(
            code=cell.code,
            context=self._context.id,
            options=cell.options(),
            cell=packets.members(packet.metadata, "metadata"),
            client=self.mailbox.client,
            header=packet.header.decode("utf-8", "replace"),
            stop_on_error=cell.stop_on_error,
        )
        execution = await self._session.run_code(request, kept=True)
        self._attachments.runs(execution, request, self.mailbox)

    async def _shut_down(self, packet: Packet) -> None:
        restart = packets.members(packet.content, "content").get("restart") is True
        self._attachments.answer(self.mailbox, packet, {"status": "ok", "restart": restart})
        if restart:
            await self._context.restart()
        else:
            await self._on_shutdown()

    async def _forward(self, kind: str, packet: Packet) -> None:
        await self._session.wake()
        kernel = await self._context.kernel()
        channel = kernel.aside if kind in ASIDE else packet.channel
        self._attachments.forward(kernel, self.mailbox, packet, channel)


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
