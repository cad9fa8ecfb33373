"""A Jupyter frontend at a context."""

from __future__ import annotations

from typing import Any

from interpreter.contexts import Context
from interpreter.frontend import Begun, Frontend, Shutdown
from interpreter.frontend_models import CellContent, FrontendRun
from interpreter.sessions import Session
from kernels.packets import Packet

ASIDE = frozenset({"complete_request", "inspect_request", "kernel_info_request"})
"""Answered while a cell runs, by a kernel that can."""


class ContextFrontend(Frontend):
    """Cells are runs of code; what the service has no part in goes to the kernel."""

    def __init__(
        self, session: Session, context: Context, client: str, on_shutdown: Shutdown
    ) -> None:
        super().__init__(context.attachments, client, on_shutdown)
        self._session = session
        self._context = context

    async def _begin(self, cell: CellContent, said: dict[str, Any]) -> Begun:
        request = FrontendRun(code=cell.code, context=self._context.id, **said)
        return await self._session.run_code(request, kept=True), request

    async def _interrupt(self) -> None:
        await self._context.interrupt()

    async def _restart(self) -> None:
        await self._context.restart()

    def _type_in(self, packet: Packet) -> None:
        self._context.attachments.type_in(self.mailbox, packet)

    async def _other(self, kind: str, packet: Packet) -> None:
        await self._session.box()
        kernel = await self._context.kernel()
        channel = kernel.aside if kind in ASIDE else packet.channel
        self._context.attachments.forward(kernel, self.mailbox, packet, channel)
