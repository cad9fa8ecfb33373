"""Events and results, as the client hands them out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from httpx_sse import ServerSentEvent

from interpreter.errors import CellshellError
from interpreter.events import Event
from interpreter.models import CodeResult, ExecResult

Callback = Callable[[str], object]
"""Called with each piece of text as it comes; what it returns is awaited when it can be."""
OutputCallback = Callable[[dict[str, Any]], object]
"""Called with each nbformat output as it comes."""


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
