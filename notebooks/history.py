"""What was run, as a notebook: one code cell a run, with its outputs, bounded in size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import nbformat
from nbformat import NotebookNode

from notebooks.cells import Output, Run, cell_id, code_cell, outputs_of

MAX_BYTES = 32 * 1024 * 1024
"""Sources and outputs of one notebook; what goes beyond is left out, and the notebook says so."""


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
        outputs = outputs_of(run.outcome)
        size = _size(outputs)
        if size > self._room:
            outputs, size = [_reference(run, size)], 0
        self._room -= size
        self._cells.append(code_cell(run, outputs, self._kernel.language))

    def remark(self, id: str, text: str, **facts: Any) -> None:
        """A cell of prose, with `facts` in its metadata."""
        if len(text) > self._room:
            self._left_out += 1
            return
        self._room -= len(text)
        metadata = {"cellshell": facts}
        cell = {"cell_type": "markdown", "id": cell_id(id), "metadata": metadata, "source": text}
        self._cells.append(cell)

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
        id = cell_id("/left-out")
        return [{"cell_type": "markdown", "id": id, "metadata": {}, "source": text}]


def make_notebook(runs: Iterable[Run], kernel: Kernel) -> NotebookNode:
    """The notebook of these runs, in their order."""
    history = History(kernel)
    for run in runs:
        history.add(run)
    return history.notebook()


def _reference(run: Run, size: int) -> Output:
    """In the place of outputs that find no room."""
    where = run.address or f"execution {run.id}"
    text = f"[outputs left out, {size:,} characters: {where} has them]"
    return {"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}


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
