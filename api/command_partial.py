"""A notebook with what a run of it has come to so far: a run may be given up."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from interpreter.events import Event


class Partial:
    """Follows the events of a run. Before the end, cells that the service puts in are not in it."""

    def __init__(self, notebook: Any) -> None:
        self.notebook = deepcopy(notebook)
        self._cells = {cell["id"]: cell for cell in self.notebook["cells"]}
        self._now: dict[str, Any] | None = None
        self.begun = False
        """Whether there is anything to keep."""
        for cell in self.notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None

    def follow(self, event: Event) -> None:
        match event.name:
            case "cell_started":
                self._now, self.begun = self._cells.get(event.data["id"]), True
            case "output" if self._now is not None:
                _add(self._now["outputs"], event.data["output"])
            case "cell_done" if self._now is not None:
                self._now["execution_count"] = event.data["execution_count"]
            case "done":
                self.notebook, self.begun = event.data["notebook"], True


def _add(outputs: list[Any], output: dict[str, Any]) -> None:
    last = outputs[-1] if outputs else {}
    if output["output_type"] == "stream" and last.get("name") == output["name"]:
        last["text"] += output["text"]
    else:
        outputs.append(dict(output))
