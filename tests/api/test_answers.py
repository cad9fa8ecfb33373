"""Whatever a box says, the answer is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.answers import encode
from interpreter.models import CodeResult, ExecResult, FileInfo


def result(**fields: Any) -> CodeResult:
    base = {"id": "e1", "context": "python", "language": "python", "status": "ok"}
    return CodeResult(**base, execution_count=1, duration=0.5, cwd="/workspace", **fields)


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"deeper": [value]}
    return value


def test_a_result_has_its_nulls_but_no_state() -> None:
    answer = json.loads(encode(result()))
    assert answer["error"] is None and "state" not in answer


def test_a_snapshot_has_its_state() -> None:
    assert json.loads(encode(result(state="running")))["state"] == "running"


def test_models_come_in_lists() -> None:
    assert encode([]) == b"[]"
    assert [item["id"] for item in json.loads(encode([result(), result()]))] == ["e1", "e1"]


@pytest.mark.parametrize("text", ["\udcff", "a\ud800b", "😀\udc00"])
def test_lone_surrogates_are_replaced(text: str) -> None:
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    exec_result = ExecResult(id="e", command="x", exit_code=0, stdout=text, duration=0.0, cwd=text)
    assert json.loads(encode(exec_result))["cwd"] == expected
    assert "state" not in json.loads(encode(exec_result))
    outputs = [{"output_type": "stream", "name": "stdout", "text": text, text: 1}]
    assert json.loads(encode(result(outputs=outputs)))["outputs"][0][expected] == 1
    assert json.loads(encode({"data": text, "deep": [{text: text}]}))["data"] == expected


def test_a_file_name_that_is_not_utf8_is_shown() -> None:
    facts = {"type": "file", "size": 1, "mode": "0644", "modified_at": "2026-01-01T00:00:00Z"}
    info = FileInfo(name="a\udcffb", path="/workspace/a\udcffb", **facts)
    assert json.loads(encode([info]))[0]["name"] == "a\ufffdb"


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**70, 10**300, nested(100), nested(5000), b"\xff", {1, 2}],
    ids=["nan", "inf", "bigger", "huge", "deep", "deeper", "bytes", "set"],
)
def test_values_json_has_not_never_fail(value: Any) -> None:
    for thing in (result(outputs=[{"data": {"application/json": value}}]), {"data": value}):
        json.loads(encode(thing), parse_constant=lambda name: pytest.fail(name))
