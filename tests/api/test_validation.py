from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.problems import document
from api.validation import MOST_ERRORS, invalid
from interpreter.errors import InvalidRequest
from interpreter.models import CreateSandbox, Exec


def refusal(model: type[Any], value: Any) -> InvalidRequest:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return invalid([{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()])


@pytest.mark.parametrize(
    ("value", "pointer", "says"),
    [
        ({}, "#/command", "is required and missing"),
        ({"command": 1}, "#/command", "a valid string"),
        ({"command": "x", "nope": 1}, "#/nope", "there is no such field"),
        ({"command": "x", "timeout": -1}, "#/timeout", "a number greater than 0, got -1"),
        ({"command": "x", "timeout": True}, "#/timeout", "expected a valid number, got true"),
        ({"command": "x", "encoding": "latin"}, "#/encoding", "'utf-8' or 'base64', got 'latin'"),
        ({"command": "a\0"}, "#/command", "NUL"),
        ([], "#", "expected a JSON object, got a list"),
    ],
)
def test_an_error_says_where_and_what(value: Any, pointer: str, says: str) -> None:
    (member,) = refusal(Exec, value).details["errors"]
    assert member["pointer"] == pointer
    assert says in member["detail"]


def test_pointers_are_escaped() -> None:
    error = {"type": "x", "loc": ("body", "a/b~c", 3), "msg": "no", "input": 1}
    assert invalid([error]).details["errors"][0]["pointer"] == "#/a~1b~0c/3"


def test_values_of_variables_and_commands_are_not_repeated() -> None:
    error = refusal(CreateSandbox, {"env": {"TOKEN": "hunter2\0"}})
    assert "hunter2" not in str(document(error))
    assert "TOKEN" in error.message


def test_thousands_of_errors_make_a_short_answer() -> None:
    error = refusal(CreateSandbox, {"env": {f"1-{'x' * 1000}-{n}": "" for n in range(5000)}})
    assert len(error.details["errors"]) == MOST_ERRORS
    assert "and 4997 more" in error.message
    assert len(str(document(error))) < 20_000
