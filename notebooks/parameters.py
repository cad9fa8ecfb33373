"""Parameters of notebooks, as papermill has them: a cell that assigns them is put in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping

import nbformat
from nbformat import NotebookNode

from interpreter.errors import InvalidRequest

TAG = "parameters"
INJECTED = "injected-parameters"


def inject(notebook: NotebookNode, values: Mapping[str, object], language: str) -> None:
    """After the cell tagged `parameters`, or before all others; what an earlier run put in is
    replaced. Raises InvalidRequest."""
    if not values:
        return
    if language not in WRITERS:
        known = ", ".join(WRITERS)
        raise InvalidRequest(f"expected no parameters for {language}: they can be given in {known}")
    line, comment = WRITERS[language]
    lines = [f"{comment} Parameters", *(line(name, value) for name, value in values.items())]
    cells = notebook.cells
    cells[:] = [cell for cell in cells if INJECTED not in tags(cell)]
    at = next((at + 1 for at, cell in enumerate(cells) if TAG in tags(cell)), 0)
    made = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]})  # type: ignore[no-untyped-call]
    made.id = secrets.token_hex(4)
    cells.insert(at, made)


def tags(cell: NotebookNode) -> list[str]:
    found = cell.metadata.get("tags", [])
    return [tag for tag in found if isinstance(tag, str)]


def _python(name: str, value: object) -> str:
    return f"{name} = {value!r}"


def _javascript(name: str, value: object) -> str:
    return f"var {name} = {json.dumps(value)};"


def _r(name: str, value: object) -> str:
    return f"{name} <- {_r_value(value)}"


def _r_value(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case Mapping():
            members = (f"{json.dumps(str(n))} = {_r_value(v)}" for n, v in value.items())
            return f"list({', '.join(members)})"
        case list():
            return f"list({', '.join(map(_r_value, value))})"
    return json.dumps(value)


WRITERS: dict[str, tuple[Callable[[str, object], str], str]] = {
    "python": (_python, "#"),
    "javascript": (_javascript, "//"),
    "typescript": (_javascript, "//"),
    "r": (_r, "#"),
}
"""By language: an assignment, and what begins a comment."""
