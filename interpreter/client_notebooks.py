"""Notebooks, from the client's side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, TypedDict, Unpack

from interpreter.client_problems import build, parse, parse_object
from interpreter.client_running import LAST
from interpreter.client_transport import Call, Transport
from interpreter.events import Event
from interpreter.notebook_models import NotebookResult, RunNotebook


class NotebookOptions(TypedDict, total=False):
    """How a notebook is run; see `interpreter.notebook_models.RunNotebook`."""

    parameters: Mapping[str, Any]
    context: str | None
    on_error: Literal["stop", "continue"]
    cell_timeout: float | None
    timeout: float | None
    output_path: str | None


class NotebookCalls:
    """The calls about notebooks that a session and a sandbox share."""

    _transport: Transport
    _session_path: str

    async def notebook(self) -> dict[str, Any]:
        """All that was done here, as a valid notebook; commands are cells for `%%bash`."""
        return parse_object(await self._transport.get(f"{self._session_path}/notebook"))

    async def run_notebook(
        self, notebook: Mapping[str, Any] | str, **options: Unpack[NotebookOptions]
    ) -> NotebookResult:
        """Runs a notebook, given as it is or as a path in the session; a failed cell is a result.

        When the caller goes away, the run ends.
        """
        body = _body(notebook, options)
        answer = await self._transport.post(f"{self._session_path}/notebooks/run", body)
        return parse(NotebookResult, answer)

    def run_notebook_stream(
        self, notebook: Mapping[str, Any] | str, **options: Unpack[NotebookOptions]
    ) -> AsyncGenerator[Event, None]:
        """The same: events `started`, `cell_started`, `output`, `cell_done`, and `done` with the
        fields of a `NotebookResult`."""
        call = Call("POST", f"{self._session_path}/notebooks/run", body=_body(notebook, options))
        return self._transport.events(call, last=LAST)


def _body(notebook: Mapping[str, Any] | str, options: NotebookOptions) -> RunNotebook:
    if isinstance(notebook, str):
        return build(RunNotebook, path=notebook, **options)
    return build(RunNotebook, notebook=_without_outputs(notebook), **options)


def _without_outputs(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """They would be dropped anyway, and may be more than a request may hold."""
    cells = notebook.get("cells")
    if not isinstance(cells, list):
        return dict(notebook)
    return {**notebook, "cells": [_without_output(cell) for cell in cells]}


def _without_output(cell: Any) -> Any:
    return {**cell, "outputs": []} if isinstance(cell, Mapping) and cell.get("outputs") else cell
