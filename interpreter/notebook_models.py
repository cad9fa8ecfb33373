"""Running notebooks: what is asked for, and what comes of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from interpreter.fields import Id, Path, Timeout
from interpreter.models import Model, Notice, Reply

ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Status = Literal["ok", "error", "timeout", "interrupted", "died"]


class RunNotebook(Model):
    """A notebook, given as it is or as a file of the session: one of the two."""

    notebook: dict[str, Any] | None = None
    """The document itself (nbformat 3 or 4)."""
    path: Path | None = None
    """An `.ipynb` file, as the session sees it."""
    parameters: dict[ParameterName, JsonValue] = Field(default_factory=dict)
    """Assigned in a cell of their own after the one tagged `parameters`, or before all others."""
    context: Id | None = None
    """Where cells of the notebook's language run; by default the session's own of the language."""
    on_error: Literal["stop", "continue"] = "stop"
    """What a cell that fails is to the rest, unless it is tagged `raises-exception`."""
    cell_timeout: Timeout | None = None
    """Of each cell."""
    timeout: Timeout | None = None
    """Of all together."""
    output_path: Path | None = None
    """Where the notebook with its outputs is written too, as the session sees it."""


class NotebookResult(Reply):
    """How a notebook ran."""

    status: Status
    """`ok`, or that of the first cell that failed without being tagged `raises-exception`."""
    failed: list[int] = Field(default_factory=list)
    """Numbers of those cells, counted from 0 in `notebook`."""
    executed: int
    """How many cells were run."""
    duration: float
    notebook: dict[str, Any]
    """With the outputs; cells that were not run have none."""
    notices: list[Notice] = Field(default_factory=list)
    """Why it was not written to `output_path`."""

    @property
    def success(self) -> bool:
        return self.status == "ok"
