"""Events, as the client hands them out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from httpx_sse import ServerSentEvent

from interpreter.errors import CellshellError
from interpreter.models import CodeResult, ExecResult

Callback = Callable[[str], object]
"""Called with each piece of text as it comes; what it returns is awaited when it can be."""
OutputCallback = Callable[[dict[str, Any]], object]
"""Called with each nbformat output as it comes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered event of a run, a process or a watch: its name and its data."""

    number: int
    name: str
    data: dict[str, Any]

    @property
    def text(self) -> str:
        """The text in it: of `stdout`, `stderr` and `output` events; otherwise empty."""
        if self.name in ("stdout", "stderr"):
            return str(self.data.get("data", ""))
        output = self.data.get("output")
        return output_text(output) if isinstance(output, dict) else ""

    @property
    def is_last(self) -> bool:
        return self.name in ("done", "exit", "error")


def output_text(output: dict[str, Any]) -> str:
    """What a terminal would show of an nbformat output; empty when that is nothing."""
    if output.get("output_type") == "stream":
        return joined(output.get("text"))
    if output.get("output_type") == "error":
        return "\n".join(str(line) for line in output.get("traceback") or ())
    data = output.get("data")
    return joined(data.get("text/plain")) if isinstance(data, dict) else ""


def joined(text: Any) -> str:
    """A text of nbformat, which may be a list of lines."""
    if isinstance(text, list):
        return "".join(str(line) for line in text)
    return text if isinstance(text, str) else ""


def read_event(sent: ServerSentEvent) -> Event:
    """One server-sent event as an `Event`; refuses what no service sends."""
    try:
        data = json.loads(sent.data)
        number = int(sent.id or 0)
    except (ValueError, RecursionError):
        data, number = None, 0
    if not isinstance(data, dict):
        raise CellshellError(
            f"expected an event with a number and a JSON object, got {sent.event!r:.50} with "
            f"{sent.data!r:.100}"
        )
    return Event(number, sent.event, data)


def read_result(data: dict[str, Any]) -> ExecResult | CodeResult:
    """A result of either kind, told apart by the command."""
    kind = ExecResult if "command" in data else CodeResult
    return kind.model_validate(data)


async def tell(callback: Callable[[Any], object] | None, value: Any) -> None:
    """Calls a callback, plain or async, if there is one."""
    if callback is None:
        return
    answer = callback(value)
    if inspect.isawaitable(answer):
        await answer
