"""What was run, as a notebook: one code cell a run, with its outputs, bounded in size."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import nbformat
from nbformat import NotebookNode

from interpreter.errors import CellshellError
from interpreter.models import CodeResult, ExecResult

MAX_BYTES = 32 * 1024 * 1024
"""Sources and outputs of one notebook; what goes beyond is left out, and the notebook says so."""
DEEPEST = 100
"""Nesting of JSON outputs beyond it is cut off: readers of notebooks are recursive."""
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
JSON_MIME = re.compile(r"application/(.*\+)?json")
"""The types that nbformat allows more than text for."""
NAMES = {"timeout": "Timeout", "interrupted": "Interrupted"}

Output = dict[str, Any]
Outcome = CodeResult | ExecResult | CellshellError


@dataclass(frozen=True, slots=True)
class Run:
    """A run of code or a command, and what it came to: a result (so far), or what ended it."""

    id: str
    source: str
    outcome: Outcome
    ended_at: float | None = None
    """In seconds since 1970, where it has ended."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a notebook says of the kernel that it is for."""

    name: str
    display_name: str
    language: str


class History:
    """Becomes a notebook, run by run, so that not all of them need to be in memory at once."""

    def __init__(self, kernel: Kernel, *, max_bytes: int = MAX_BYTES) -> None:
        self._kernel = kernel
        self._room = max_bytes
        self._cells: list[dict[str, Any]] = []
        self._left_out = 0

    def add(self, run: Run) -> None:
        """Outputs that do not fit are replaced by a note; from the first source on, whole runs."""
        if self._left_out or len(run.source) > self._room:
            self._left_out += 1
            return
        self._room -= len(run.source)
        outputs = [_plain(output) for output in _outputs(run.outcome)]
        size = _size(outputs)
        if size > self._room:
            outputs = [_note(f"[outputs left out: execution {run.id} has them]")]
            size = 0
        self._room -= size
        self._cells.append(_code_cell(run, outputs, self._kernel.language))

    def notebook(self) -> NotebookNode:
        """Valid by nbformat 4.5."""
        kernel = self._kernel
        document = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {
                "kernelspec": {
                    "name": kernel.name,
                    "display_name": kernel.display_name,
                    "language": kernel.language,
                },
                "language_info": {"name": kernel.language},
            },
            "cells": [*self._cells, *self._remark()],
        }
        notebook: NotebookNode = nbformat.from_dict(document)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
        return notebook

    def _remark(self) -> list[dict[str, Any]]:
        if not self._left_out:
            return []
        text = f"*{self._left_out} more runs left out: the notebook would have been too large.*"
        id = _cell_id("/left-out")
        return [{"cell_type": "markdown", "id": id, "metadata": {}, "source": text}]


def make_notebook(runs: Iterable[Run], kernel: Kernel) -> NotebookNode:
    """The notebook of these runs, in their order."""
    history = History(kernel)
    for run in runs:
        history.add(run)
    return history.notebook()


def _code_cell(run: Run, outputs: Sequence[Output], language: str) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "cell_type": "code",
        "id": _cell_id(run.id),
        "metadata": {**_timing(run), **_other_language(outcome, language), **_own(run)},
        "execution_count": outcome.execution_count if isinstance(outcome, CodeResult) else None,
        "source": run.source,
        "outputs": list(outputs),
    }


def _timing(run: Run) -> dict[str, Any]:
    """As JupyterLab writes it down when it is asked to."""
    if run.ended_at is None or isinstance(run.outcome, CellshellError):
        return {}
    begun = datetime.fromtimestamp(run.ended_at - run.outcome.duration, UTC)
    ended = datetime.fromtimestamp(run.ended_at, UTC)
    times = {"iopub.execute_input": begun, "shell.execute_reply": ended}
    return {"execution": {name: time.isoformat() for name, time in times.items()}}


def _other_language(outcome: Outcome, language: str) -> dict[str, Any]:
    """A cell that the notebook's kernel cannot run: editors show it right, runners pass it over."""
    if not isinstance(outcome, CodeResult) or outcome.language == language:
        return {}
    return {"vscode": {"languageId": outcome.language}, "tags": ["skip-execution"]}


def _own(run: Run) -> dict[str, Any]:
    """What no convention has a place for."""
    told: dict[str, Any] = {"execution": run.id}
    outcome = run.outcome
    if isinstance(outcome, CellshellError):
        return {"cellshell": told}
    if isinstance(outcome, ExecResult):
        told["exit_code"] = outcome.exit_code
    if changes := outcome.environment_changes.model_dump(exclude_defaults=True):
        told["environment_changes"] = changes
    if outcome.output_path:
        told["output_path"] = outcome.output_path
    return {"cellshell": told}


def _cell_id(id: str) -> str:
    """The execution's own, unless it has a dot: ids of cells have none."""
    return id if CELL_ID.fullmatch(id) else hashlib.sha256(id.encode()).hexdigest()


def _outputs(outcome: Outcome) -> list[Output]:
    if isinstance(outcome, CellshellError):
        return [_error(type(outcome).__name__, outcome.message)]
    if isinstance(outcome, ExecResult):
        return [*_streams(outcome), *_ending_of_command(outcome)]
    told = any(output.get("output_type") == "error" for output in outcome.outputs)
    return [*outcome.outputs, *([] if told else _ending(outcome))]


def _ending(result: CodeResult) -> list[Output]:
    """How a run ended, where the kernel has not said it."""
    if result.error is not None:
        return [_error(result.error.ename, result.error.evalue)]
    if result.state in (None, "done") and result.status in NAMES:
        return [_error(NAMES[result.status], f"ended after {result.duration:.1f} s")]
    return []


def _streams(result: ExecResult) -> list[Output]:
    texts = {"stdout": result.stdout, "stderr": result.stderr}
    return [
        {"output_type": "stream", "name": name, "text": text}
        for name, text in texts.items()
        if text
    ]


def _ending_of_command(result: ExecResult) -> list[Output]:
    """An exit status is in the metadata: `%%bash` fails where a command's status is no error."""
    if result.timed_out or result.cancelled:
        name = NAMES["timeout" if result.timed_out else "interrupted"]
        return [_error(name, f"ended after {result.duration:.1f} s")]
    return []


def _error(ename: str, evalue: str) -> Output:
    traceback = [f"{ename}: {evalue}"]
    return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": traceback}


def _note(text: str) -> Output:
    return {"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}


def _plain(output: Output) -> Output:
    """An output as nbformat's schema wants it."""
    if "data" not in output:
        return output
    data = {mime: _content(mime, value) for mime, value in output["data"].items()}
    return {**output, "data": data, "metadata": _cut(output.get("metadata", {}), 0)}


def _content(mime: str, value: Any) -> Any:
    cut = _cut(value, 0)
    is_text = isinstance(cut, str) or JSON_MIME.fullmatch(mime)
    return cut if is_text else json.dumps(cut)


def _cut(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping | list):
        return value
    if depth > DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, Mapping):
        return {name: _cut(item, depth + 1) for name, item in value.items()}
    return [_cut(item, depth + 1) for item in value]


def _size(value: Any) -> int:
    """Characters of text and JSON, roughly."""
    match value:
        case str():
            return len(value)
        case Mapping():
            return sum(len(name) + _size(item) for name, item in value.items())
        case list():
            return sum(map(_size, value))
    return 8
