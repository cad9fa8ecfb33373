"""Cells of notebooks, made of what was run and what it came to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from interpreter.errors import CellshellError
from interpreter.models import CodeResult, ExecResult

DEEPEST = 100
"""Nesting of JSON outputs beyond it is cut off: readers of notebooks are recursive."""
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
JSON_MIME = re.compile(r"application/(.*\+)?json")
"""The types that nbformat allows more than text for."""
NAMES = {"timeout": "Timeout", "interrupted": "Interrupted"}

ASKED = ("cwd", "env", "stdin")
"""What a record says of what held for its run alone."""

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
    address: str = ""
    """Where the service has all of it."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """For this run alone: `cwd`, and the names of what else there was."""


def code_cell(run: Run, outputs: Sequence[Output], language: str) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "cell_type": "code",
        "id": cell_id(run.id),
        "metadata": {**timing(run), **_foreign(outcome, language), **own(run)},
        "execution_count": outcome.execution_count if isinstance(outcome, CodeResult) else None,
        "source": run.source,
        "outputs": list(outputs),
    }


def timing(run: Run) -> dict[str, Any]:
    """As JupyterLab writes it down when it is asked to."""
    if run.ended_at is None or isinstance(run.outcome, CellshellError):
        return {}
    begun = datetime.fromtimestamp(run.ended_at - run.outcome.duration, UTC)
    ended = datetime.fromtimestamp(run.ended_at, UTC)
    times = {"iopub.execute_input": begun, "shell.execute_reply": ended}
    return {"execution": {name: time.isoformat() for name, time in times.items()}}


def _foreign(outcome: Outcome, language: str) -> dict[str, Any]:
    """What editors and other runners have to know: a language that the notebook's kernel cannot
    run, or that the cell fails."""
    tags = ["raises-exception"] if _failed(outcome) else []
    if not isinstance(outcome, CodeResult) or outcome.language == language:
        return {"tags": tags} if tags else {}
    return {"vscode": {"languageId": outcome.language}, "tags": ["skip-execution", *tags]}


def _failed(outcome: Outcome) -> bool:
    match outcome:
        case CodeResult():
            return outcome.status != "ok"
        case ExecResult():
            return outcome.exit_code != 0
    return True


def own(run: Run) -> dict[str, Any]:
    """What no convention has a place for."""
    told: dict[str, Any] = {"execution": run.id, **run.asked}
    outcome = run.outcome
    if isinstance(outcome, CellshellError):
        return {"cellshell": told}
    if isinstance(outcome, ExecResult):
        told |= {"kind": "command", "exit_code": outcome.exit_code}
    else:
        told |= {"language": outcome.language, "context": outcome.context}
    if outcome.omitted is not None:
        told["omitted"] = outcome.omitted.model_dump()
    if changes := outcome.environment_changes.model_dump(exclude_defaults=True):
        told["environment_changes"] = changes
    if outcome.output_path:
        told["output_path"] = outcome.output_path
    return {"cellshell": told}


def cell_id(id: str) -> str:
    """The execution's own, unless it has a dot: ids of cells have none."""
    return id if CELL_ID.fullmatch(id) else hashlib.sha256(id.encode()).hexdigest()


def outputs_of(outcome: Outcome) -> list[Output]:
    """As nbformat's schema wants them."""
    return [_plain(output) for output in _told(outcome)]


def _told(outcome: Outcome) -> list[Output]:
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


def _plain(output: Output) -> Output:
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
