from __future__ import annotations

import time
from typing import Any

import nbformat
import pytest

from kernels.messages import (
    ClearOutput,
    Display,
    Error,
    Event,
    ExecuteResult,
    Stream,
    UpdateDisplay,
)
from kernels.outputs import MAX_OUTPUTS, OutputCollector

KIB = 1024


def collected(*events: Event, max_bytes: int = 64 * KIB) -> OutputCollector:
    collector = OutputCollector(max_bytes)
    for event in events:
        collector.apply(event)
    validate(collector)
    return collector


def validate(collector: OutputCollector) -> None:
    cell = nbformat.v4.new_code_cell(outputs=nbformat.from_dict(collector.outputs()))
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]), relax_add_props=False)


def shown(text: str, display_id: str | None = None, **data: Any) -> Display:
    return Display({"text/plain": text, **data}, {}, display_id)


def texts(collector: OutputCollector) -> list[str]:
    return [
        output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
        for output in collector.outputs()
    ]


def test_adjacent_text_of_a_stream_is_one_output():
    collector = collected(
        Stream("stdout", "a"), Stream("stdout", "b"), Stream("stderr", "c"), Stream("stdout", "d")
    )
    assert collector.outputs() == [
        {"output_type": "stream", "name": "stdout", "text": "ab"},
        {"output_type": "stream", "name": "stderr", "text": "c"},
        {"output_type": "stream", "name": "stdout", "text": "d"},
    ]
    assert collector.stream("stdout") == "abd"
    assert not collector.truncated


def test_the_result_is_the_text():
    collector = collected(
        shown("picture"), ExecuteResult({"text/plain": "2", "text/html": "<b>2</b>"}, {}, 1)
    )
    assert collector.text == "2"
    assert collector.outputs()[1]["execution_count"] == 1


def test_an_update_changes_every_display_of_that_id():
    collector = collected(
        shown("a", "x"),
        shown("b", "y"),
        shown("c", "x"),
        UpdateDisplay({"text/plain": "new"}, {"k": 1}, "x"),
        UpdateDisplay({"text/plain": "nobody's"}, {}, "z"),
    )
    assert texts(collector) == ["new", "b", "new"]
    assert collector.outputs()[0]["metadata"] == {"k": 1}


def test_clear_removes_at_once_or_with_the_next_output():
    collector = collected(Stream("stdout", "a"), ClearOutput(wait=True))
    assert texts(collector) == ["a"]
    collector.apply(shown("b"))
    assert texts(collector) == ["b"]
    collector.apply(ClearOutput(wait=False))
    assert collector.outputs() == []


def test_a_long_stream_keeps_head_and_tail_across_other_outputs():
    collector = collected(
        Stream("stdout", "head" + "-" * 100),
        shown("between"),
        Stream("stdout", "-" * 100),
        shown("more"),
        Stream("stdout", "-" * 100 + "tail"),
        max_bytes=20,
    )
    first, between, more, last = texts(collector)
    assert first == "head------\n[... 288 bytes omitted ...]\n"
    assert (between, more, last) == ("between", "more", "------tail")
    assert collector.omitted == {"stdout": 288, "stderr": 0}
    assert collector.truncated


def test_streams_are_limited_apart():
    collector = collected(Stream("stdout", "x" * 100), Stream("stderr", "short"), max_bytes=10)
    assert collector.omitted == {"stdout": 90, "stderr": 0}
    assert collector.stream("stderr") == "short"


def test_an_image_that_is_too_long_leaves_a_sentence():
    picture = shown("<Figure>", **{"image/png": "A" * 200})
    [output] = collected(picture, max_bytes=100).outputs()
    assert set(output["data"]) == {"text/plain"}
    assert output["data"]["text/plain"] == (
        "<Figure>\n[image/png left out: 200 bytes, the limit is 100]"
    )


def test_json_nested_too_deeply_leaves_a_sentence():
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    [output] = collected(Display({"application/json": nested}, {"m": nested})).outputs()
    assert output["data"] == {"text/plain": "[application/json left out: nested too deeply]"}
    assert output["metadata"] == {}


def test_a_long_error_is_shortened():
    collector = collected(Error("E" * 5000, "v" * 10_000, tuple(["line"] * 1000)), max_bytes=100)
    [output] = collector.outputs()
    assert len(output["ename"]) == 1000
    assert len(output["evalue"]) < 200
    assert sum(map(len, output["traceback"])) < 200
    assert collector.truncated


def test_the_number_of_outputs_is_limited():
    collector = OutputCollector(KIB)
    for number in range(MAX_OUTPUTS + 500):
        collector.apply(shown(str(number)))
    found = texts(collector)
    assert found[-1] == "[500 more outputs left out]"
    assert len(found) == MAX_OUTPUTS + 1


def test_alternating_streams_do_not_grow_without_limit():
    collector = OutputCollector(1024 * KIB)
    for _ in range(3 * MAX_OUTPUTS):
        collector.apply(Stream("stdout", "o"))
        collector.apply(Stream("stderr", "e"))
    assert len(collector.outputs()) <= MAX_OUTPUTS + 1
    assert collector.stream("stderr") == "e" * 3 * MAX_OUTPUTS


def test_many_small_prints_take_linear_time():
    def seconds(count: int) -> float:
        collector = OutputCollector(16 * 1024 * KIB)
        start = time.perf_counter()
        for _ in range(count):
            collector.apply(Stream("stdout", "some text\n"))
        assert len(collector.outputs()) == 1
        return time.perf_counter() - start

    seconds(1000)
    assert seconds(100_000) < 30 * max(seconds(10_000), 0.005)


@pytest.mark.parametrize("text", ["äöü€😀" * 50, "\r\n\0\x1b[31m" * 50])
def test_text_is_text_however_it_is_cut(text: str):
    for limit in range(1, 40):
        collector = collected(Stream("stdout", text), max_bytes=limit)
        assert "�" not in collector.stream("stdout")
        assert collector.outputs()[0]["text"] == collector.stream("stdout")
