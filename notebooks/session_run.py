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
    SandboxDeleted,
    ServiceStopping,
    SessionDeleted,
)
from interpreter.events import Event, dumps
from interpreter.execution import Execution
from interpreter.models import CodeResult, CreateContext, Exec, ExecResult, Notice, RunCode
from interpreter.notebook_models import NotebookResult, RunNotebook, Status
from interpreter.sessions import Session
from notebooks.cells import ASKED, Outcome, Run, outputs_of, own, timing
from notebooks.documents import MOST_BYTES, parse, parse_text
from notebooks.parameters import inject, tags

SKIP, RAISES = "skip-execution", "raises-exception"
BASH = "%%bash"
KERNELSPECS = {"python3": "python", "ir": "r", "deno": "typescript"}
"""Of notebooks that name nothing else, by what they are called nearly everywhere."""
ENDS = (ServiceStopping, SessionDeleted, SandboxDeleted)
"""There is nothing then that could be answered with a result."""
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
    told = str(info.get("name") or spec.get("language") or spec.get("name") or "python").lower()
    return KERNELSPECS.get(told, told)


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
            self._ends_in_time(execution)
            async with aclosing(_outputs(execution)) as outputs:
                async for output in outputs:
                    yield self._event("output", {"index": index, "output": output})
            outcome = await execution.result()
        except ENDS:
            raise
        except CellshellError as error:
            if execution is None and self._is_refused(error):
                raise
            outcome = error
        finally:
            if execution is not None and execution.state != "done":
                execution.end_early(None)
        yield self._event("cell_done", self._ended(index, cell, execution, outcome))

    async def _begin(self, cell: NotebookNode) -> Execution:
        source, timeout, cwd = cell.source, self._time(), _record(cell).get("cwd")
        language = _language(cell) or self._language
        try:
            if language in SHELLS or _record(cell).get("kind") == "command":
                command = source.removeprefix(BASH).removeprefix("\n")
                asked = {"command": command, "timeout": timeout, "cwd": cwd}
                return await self._session.exec(Exec.model_validate(asked))
            where = await self._where(cell, language)
            asked = {"code": source, "timeout": timeout, "cwd": cwd, **where}
            request = RunCode.model_validate(asked)
        except ValidationError as error:
            raise InvalidRequest(f"cell {cell.id!r} cannot be run: {error}") from None
        return await self._session.run_code(request)

    async def _where(self, cell: NotebookNode, language: str) -> dict[str, Any]:
        """A cell of a record runs in a context of the name that it ran in."""
        if language == self._language and self._request.context is not None:
            return {"context": self._request.context}
        name = _record(cell).get("context")
        if name is None or name == language:
            return {"language": language}
        if name not in [context.id for context in self._session.contexts()]:
            await self._session.create_context(
                CreateContext.model_validate({"id": name, "language": language})
            )
        return {"context": name}

    def _runs(self, cell: NotebookNode) -> bool:
        if cell.cell_type != "code" or not cell.source.strip():
            return False
        # Other runners have no kernel for the cells of other languages, and are told to skip them.
        return SKIP not in tags(cell) or _language(cell) not in (None, self._language)

    def _ended(
        self, index: int, cell: NotebookNode, execution: Execution | None, outcome: Outcome
    ) -> dict[str, Any]:
        self._executed += 1
        record = _record(cell)
        asked = {name: record[name] for name in ASKED if name in record}
        run = Run("", cell.source, outcome, asked=asked)
        if execution is not None:
            run = Run(execution.id, cell.source, outcome, execution.ended_at, asked=asked)
        count = outcome.execution_count if isinstance(outcome, CodeResult) else None
        cell.outputs, cell.execution_count = outputs_of(outcome), count
        cell.metadata.update({**timing(run), **own(run)})
        status = _status(outcome)
        if status != "ok" and self._is_over():
            status = "timeout"
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

    def _is_refused(self, error: CellshellError) -> bool:
        """Whether the run as a whole comes to nothing: what has been run is worth a result."""
        return not self._executed and not isinstance(error, LanguageUnknown | LanguageUnavailable)

    def _ends_in_time(self, execution: Execution) -> None:
        """Also while it waits for others: its own time-out counts from when it begins."""
        if self._until is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_at(self._until, execution.end_early, None)
            execution.ended.add_done_callback(lambda _: timer.cancel())

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
            await self._keep(result, self._request.output_path)
        return result

    async def _keep(self, result: NotebookResult, path: str) -> None:
        document = await asyncio.to_thread(dumps, result.notebook)
        try:
            await self._session.files.write(path, _whole(document))
        except ENDS:
            raise
        except CellshellError as error:
            result.notices.append(Notice(code=error.code, message=error.message))

    def _event(self, name: str, data: dict[str, Any]) -> Event:
        self._number += 1
        return Event(self._number, name, data)


def _language(cell: NotebookNode) -> str | None:
    """A language of the cell's own, as VS Code and our records have it."""
    told = cell.metadata.get("vscode")
    found = told.get("languageId") if isinstance(told, dict) else None
    return found.lower() if isinstance(found, str) and found else None


def _record(cell: NotebookNode) -> dict[str, Any]:
    """What one of our records says of itself; a command is for `%%bash` to other runners."""
    told = cell.metadata.get("cellshell")
    return told if isinstance(told, dict) else {}


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
