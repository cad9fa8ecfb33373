"""What the schema refuses, as one sentence a person can act on and a pointer a program can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from api.answers import whole
from interpreter.errors import InvalidRequest

MOST_ERRORS = 10
LONGEST_VALUE = 40
WORDING = {
    "Input should be greater": "a number greater",
    "Input should be less": "a number less",
    "Input should be ": "",
    "String should match pattern ": "a string that matches ",
}
UNSAID = {"[key]", "[name]", "[list]"}
"""Steps that are pydantic's and lead nowhere in the document."""
SHOWN = {"literal_error", "string_pattern_mismatch"}
"""Errors that repeat a text; others may be about commands and values, which stay unsaid."""


def invalid(errors: Sequence[Any]) -> InvalidRequest:
    """The `invalid_request` error for what pydantic found."""
    shown = [_member(error) for error in errors[:MOST_ERRORS]]
    message = "; ".join(error["detail"] for error in shown[:3])
    if len(errors) > 3:
        message += f"; and {len(errors) - 3} more"
    return InvalidRequest(message, errors=shown)


def _member(error: Mapping[str, Any]) -> dict[str, str]:
    source, *path = error.get("loc") or ("body",)
    path = [whole(str(step))[:200] for step in path if step not in UNSAID]
    detail = f"{_where(source, path)}: {_sentence(error)}{_got(error, source)}"
    if source == "body":
        return {"detail": detail, "pointer": "#" + "".join(f"/{_escape(step)}" for step in path)}
    return {"detail": detail, "parameter": ".".join(path)}


def _where(source: Any, path: Sequence[str]) -> str:
    name = ".".join(path)
    if source == "body":
        return name or "the body"
    return f"{source} parameter {name}"


def _sentence(error: Mapping[str, Any]) -> str:
    match error.get("type"):
        case "missing":
            return "is required and missing"
        case "extra_forbidden":
            return "there is no such field"
        case "model_attributes_type" | "dict_type" | "model_type":
            return "expected a JSON object"
    message = whole(str(error.get("msg", "")))[:500].removeprefix("Value error, ")
    for start, ours in WORDING.items():
        if message.startswith(start):
            return f"expected {ours}{message[len(start) :]}"
    return message


def _got(error: Mapping[str, Any], source: Any) -> str:
    value, kind = error.get("input"), error.get("type")
    if kind in ("missing", "extra_forbidden"):
        return ""
    if value is None or isinstance(value, bool | int | float):
        return f", got {json.dumps(value)[:LONGEST_VALUE]}"
    if isinstance(value, str):
        shown = len(value) <= LONGEST_VALUE and (source != "body" or kind in SHOWN)
        return f", got {whole(value)!r}" if shown else ""
    return f", got {'an object' if isinstance(value, dict) else 'a list'}"


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
