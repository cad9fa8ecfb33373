"""Jupyter frontends at a session's shell: its commands are cells to them, whoever runs them."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

from interpreter.attachments import Asked, Attachments, Content, failure
from interpreter.execution import Execution
from interpreter.frontend_models import FrontendExec
from interpreter.mailbox import Mailbox
from interpreter.models import Exec, ExecResult
from interpreter.recording import STREAMS
from kernels import packets


class ShellAttachments(Attachments):
    """The frontends at one shell."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        """Of commands, as of a kernel's cells."""
        self._numbers: dict[Asked, int] = {}
        """Of those that run."""

    def begins(self, execution: Execution, request: Exec) -> None:
        """A command runs from now on."""
        self._count += 1
        asked = self._asked.get(execution.id)
        if asked is None:
            # Nobody waits for an answer, and everybody hears it.
            asked = Asked(Mailbox(), "shell", self._header(execution))
            execution.ended.add_done_callback(lambda _: self._ended(asked, execution))
        self._numbers[asked] = self._count
        self._tell(packets.status("busy", asked.header))
        if isinstance(request, FrontendExec) and request.silent:
            return
        told = {"code": request.command, "execution_count": self._count}
        self._tell(packets.made("iopub", "execute_input", told, asked.header))
        execution.watcher = partial(self._heard, asked, request.encoding)

    def ends(self, execution: Execution) -> None:
        """At once, so that what its end aborts does not begin."""
        if asked := self._asked.get(execution.id):
            self._ended(asked, execution)

    def _header(self, execution: Execution) -> bytes:
        return packets.header("execute_request", execution.id) if self._mailboxes else b"{}"

    def _heard(self, asked: Asked, encoding: str, name: str, data: dict[str, Any]) -> None:
        if name not in STREAMS or not self._mailboxes:
            return
        text = data["data"]
        if encoding == "base64":
            text = base64.b64decode(text).decode("utf-8", "replace")
        packet = packets.made("iopub", "stream", {"name": name, "text": text}, asked.header)
        self._tell(packet, needed=False)

    def _ended(self, asked: Asked, execution: Execution) -> None:
        super()._ended(asked, execution)
        self._numbers.pop(asked, None)

    def _outcome(self, asked: Asked, execution: Execution) -> Content | None:
        """As of a kernel for bash: an exit status that is not 0 is an error."""
        count = self._numbers.get(asked)
        if not isinstance(result := execution.ending, ExecResult):
            return None
        if count is None:
            return {"status": "aborted"}
        content = _content(result)
        if asked.stops_on_error and content["status"] == "error":
            self._abort(asked)
        return {**content, "execution_count": count}


def _content(result: ExecResult) -> Content:
    if result.timed_out:
        return failure("Timeout", f"ended after {result.duration:.1f} s")
    if result.cancelled:
        return failure("KeyboardInterrupt", "the command was interrupted")
    if result.exit_code:
        return failure("ExitStatus", str(result.exit_code))
    return {"status": "ok", "payload": [], "user_expressions": {}}
