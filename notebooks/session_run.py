"""Notebooks run in a session, cell by cell, with everything that the session shares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from nbformat import NotebookNode
from pydantic import ValidationError

from interpreter.errors import (
    CellshellError,
    InvalidRequest,
    LanguageUnavailable,
    LanguageUnknown,
)
from interpreter.events import Event, dumps
from interpreter.execution import Execution
from interpreter.models import CodeResult, Exec, ExecResult, RunCode
from interpreter.notebook_models import NotebookResult, RunNotebook, Status
from interpreter.sessions import Session
from notebooks.cells import Outcome, Run, outputs_of, own, timing
from notebooks.documents import MOST_BYTES, parse, parse_text
from notebooks.parameters import inject, tags

SKIP, RAISES = "skip-execution", "raises-exception"
BASH = "%%bash"
SHELLS = frozenset({"bash", "shellscript"})
"""What is run by the session's shell; the second is VS Code's word."""


async def load(session: Session, request: RunNotebook) -> NotebookNode:
    """The notebook that is asked for, with its parameters. Raises InvalidRequest, FileNotFound."""
    if (request.notebook is None) == (request.path is None):
        raise InvalidRequest("expected `notebook` or `path`: one of the two")
    if request.notebook is not None:
        notebook = await asyncio.to_thread(parse, request.notebook)
    else:
        notebook = await asyncio.to_thread(parse_text, await _read(session, str(request.path)))
    inject(notebook, request.parameters, language_of(notebook))
    _clear(notebook)
    return notebook


def language_of(notebook: NotebookNode) -> str:
    """By the kernelspec, or what is said of the language; Python where nothing is."""
    spec = notebook.metadata.get("kernelspec") or {}
    info = notebook.metadata.get("language_info") or {}
    return str(info.get("name") or spec.get("language") or spec.get("name") or "python").lower()


class SessionRun:
    """One run of a notebook. The run ends, with the cell it is at, when its events are closed."""

    def __init__(self, session: Session, request: RunNotebook, notebook: NotebookNode) -> None:
        self._session = session
        self._request = request
        self._notebook = notebook
        self._language = language_of(notebook)
        self._number = 0
        self._executed = 0
        self._status: Status = "ok"
        self._failed: list[int] = []
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        self._until = self._begun + request.timeout if request.timeout else None

    async def events(self) -> AsyncGenerator[Event, None]:
        """`started`; `cell_started`, `output` and `cell_done` of each cell; `done`."""
        cells = self._notebook.cells
        yield self._event("started", {"cells": len(cells), "language": self._language})
        for index, cell in enumerate(cells):
            if not self._runs(cell):
                continue
            async with aclosing(self._cell(index, cell)) as events:
                async for event in events:
                    yield event
            if self._failed and (self._request.on_error == "stop" or self._is_over()):
                break
        yield self._event("done", (await self._result()).model_dump())

    async def _cell(self, index: int, cell: NotebookNode) -> AsyncGenerator[Event, None]:
        yield self._event("cell_started", {"index": index, "id": cell.id})
        execution: Execution | None = None
        outcome: Outcome
        try:
            execution = await self._begin(cell)
            async with aclosing(_outputs(execution)) as outputs:
                async for output in outputs:
                    yield self._event("output", {"index": index, "output": output})
            outcome = await execution.result()
        except (LanguageUnknown, LanguageUnavailable) as error:
            outcome = error
        except CellshellError as error:
            if execution is None:
                raise
            outcome = error
        finally:
            if execution is not None and execution.state != "done":
                execution.end_early(None)
        yield self._event("cell_done", self._ended(index, cell, execution, outcome))

    async def _begin(self, cell: NotebookNode) -> Execution:
        source, timeout = cell.source, self._time()
        language = _language(cell) or self._language
        try:
            if language in SHELLS or _is_command(cell):
                command = source.removeprefix(BASH).removeprefix("\n")
                return await self._session.exec(Exec(command=command, timeout=timeout))
            own = language == self._language and self._request.context is not None
            where = {"context": self._request.context} if own else {"language": language}
            request = RunCode.model_validate({"code": source, "timeout": timeout, **where})
        except ValidationError as error:
            raise InvalidRequest(f"cell {cell.id!r} cannot be run: {error}") from None
        return await self._session.run_code(request)

    def _runs(self, cell: NotebookNode) -> bool:
        if cell.cell_type != "code" or not cell.source.strip():
            return False
        # Other runners have no kernel for the cells of other languages, and are told to skip them.
        return SKIP not in tags(cell) or _language(cell) not in (None, self._language)

    def _ended(
        self, index: int, cell: NotebookNode, execution: Execution | None, outcome: Outcome
    ) -> dict[str, Any]:
        self._executed += 1
        run = Run(execution.id if execution else "", cell.source, outcome)
        if execution is not None:
            run = Run(execution.id, cell.source, outcome, execution.ended_at)
        count = outcome.execution_count if isinstance(outcome, CodeResult) else None
        cell.outputs, cell.execution_count = outputs_of(outcome), count
        cell.metadata.update({**timing(run), **own(run)})
        status = _status(outcome)
        if status != "ok" and RAISES not in tags(cell):
            self._failed.append(index)
            self._status = self._status if self._status != "ok" else status
        return {
            "index": index,
            "id": cell.id,
            "status": status,
            "execution": run.id,
            "execution_count": count,
            "duration": 0.0 if isinstance(outcome, CellshellError) else outcome.duration,
        }

    def _time(self) -> float | None:
        """For the next cell."""
        limits = [self._request.cell_timeout]
        if self._until is not None:
            limits.append(max(0.001, self._until - asyncio.get_running_loop().time()))
        return min((limit for limit in limits if limit is not None), default=None)

    def _is_over(self) -> bool:
        return self._until is not None and asyncio.get_running_loop().time() >= self._until

    async def _result(self) -> NotebookResult:
        duration = asyncio.get_running_loop().time() - self._begun
        self._notebook.metadata["cellshell"] = {
            "status": self._status,
            "duration": duration,
            "parameters": dict(self._request.parameters),
        }
        result = NotebookResult(
            status=self._status,
            failed=self._failed,
            executed=self._executed,
            duration=duration,
            notebook=self._notebook,
        )
        if self._request.output_path is not None:
            document = await asyncio.to_thread(dumps, result.notebook)
            await self._session.files.write(self._request.output_path, _whole(document))
        return result

    def _event(self, name: str, data: dict[str, Any]) -> Event:
        self._number += 1
        return Event(self._number, name, data)


def _language(cell: NotebookNode) -> str | None:
    """A language of the cell's own, as VS Code and our records have it."""
    told = cell.metadata.get("vscode")
    found = told.get("languageId") if isinstance(told, dict) else None
    return found.lower() if isinstance(found, str) and found else None


def _is_command(cell: NotebookNode) -> bool:
    """Whether it is one of our records of a command, which to other runners is for `%%bash`."""
    told = cell.metadata.get("cellshell")
    return isinstance(told, dict) and told.get("kind") == "command"


def _status(outcome: Outcome) -> Status:
    match outcome:
        case CodeResult():
            return outcome.status
        case ExecResult(timed_out=True):
            return "timeout"
        case ExecResult(cancelled=True):
            return "interrupted"
        case ExecResult(exit_code=0):
            return "ok"
    return "error"


async def _outputs(execution: Execution) -> AsyncGenerator[dict[str, Any], None]:
    """As they come; in the end, the result has them as they are to stay."""
    async with aclosing(execution.events()) as events:
        async for event in events:
            if event.name in ("stdout", "stderr"):
                yield {"output_type": "stream", "name": event.name, "text": event.text}
            elif event.name == "output":
                yield event.data["output"]


def _clear(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


async def _read(session: Session, path: str) -> bytes:
    file = await session.files.read(path)
    try:
        if file.info.size > MOST_BYTES:
            raise InvalidRequest(f"expected a notebook of {MOST_BYTES >> 20} MiB at most: {path}")
        return await asyncio.to_thread(_all_of, file.fd)
    finally:
        os.close(file.fd)


def _all_of(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read(MOST_BYTES)


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data
