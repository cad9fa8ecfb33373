"""A Jupyter frontend at a session's shell, which is a kernel for bash to it."""

from __future__ import annotations

from typing import Any

from interpreter import completion
from interpreter.attachments import Content, failure
from interpreter.frontend import Begun, Frontend, Shutdown
from interpreter.frontend_models import CellContent, FrontendExec
from interpreter.sessions import Session
from kernels import packets
from kernels.packets import PROTOCOL, Packet

INFO: Content = {
    "status": "ok",
    "protocol_version": PROTOCOL,
    "implementation": "cellshell",
    "implementation_version": "1",
    "language_info": {
        "name": "bash",
        "version": "5",
        "mimetype": "text/x-sh",
        "file_extension": ".sh",
        "pygments_lexer": "bash",
        "codemirror_mode": "shell",
    },
    "banner": "The bash of a session: its variables and directory are those of the kernels.\n",
    "debugger": False,
    "help_links": [],
    "supported_features": [],
}
KNOWN: dict[str, Content] = {
    "kernel_info_request": INFO,
    "inspect_request": {"status": "ok", "found": False, "data": {}, "metadata": {}},
    "is_complete_request": {"status": "unknown"},
    "history_request": {"status": "ok", "history": []},
    "comm_info_request": {"status": "ok", "comms": {}},
}


class ShellFrontend(Frontend):
    """Cells are commands; they have no standard input, as over the API."""

    def __init__(self, session: Session, client: str, on_shutdown: Shutdown) -> None:
        super().__init__(session.commands.attachments, client, on_shutdown)
        self._session = session

    async def _begin(self, cell: CellContent, said: dict[str, Any]) -> Begun:
        request = FrontendExec(command=cell.code, **said)
        return await self._session.exec(request, kept=True), request

    async def _interrupt(self) -> None:
        self._session.commands.interrupt()

    async def _restart(self) -> None:
        await self._session.commands.restart()

    def _type_in(self, packet: Packet) -> None:
        """Nothing was asked."""

    async def _other(self, kind: str, packet: Packet) -> None:
        if not kind.endswith("_request"):
            return  # such as a message of a comm, which needs no answer
        content = packets.members(packet.content, "content")
        answer = KNOWN.get(kind) or failure("Unsupported", f"bash has no answer to {kind:.80}")
        if kind == "complete_request":
            answer = await completion.complete(self._session, content)
        if kind == "debug_request":
            answer = _no_debugger(content)
        self._attachments.answer(self.mailbox, packet, answer)


def _no_debugger(request: dict[str, Any]) -> Content:
    return {
        "type": "response",
        "request_seq": request.get("seq"),
        "success": False,
        "command": request.get("command"),
        "message": "bash has no debugger",
    }
