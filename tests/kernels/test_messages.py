from __future__ import annotations

from typing import Any

import pytest

from kernels import messages
from kernels.messages import ClearOutput, Display, Error, ExecuteResult, Message, Stream


def message(type_: str, **content: Any) -> Message:
    return Message("iopub", type_, "id", "parent", content, {}, 100)


def test_well_formed_messages_become_events():
    assert messages.event(message("stream", name="stderr", text="x")) == Stream("stderr", "x")
    assert messages.event(message("clear_output", wait=True)) == ClearOutput(True)
    result = message("execute_result", data={"text/plain": "2"}, metadata={}, execution_count=1)
    assert messages.event(result) == ExecuteResult({"text/plain": "2"}, {}, 1)
    failure = message("error", ename="E", evalue="v", traceback=["a", "b"])
    assert messages.event(failure) == Error("E", "v", ("a", "b"))


@pytest.mark.parametrize(
    "odd",
    [
        message("stream"),
        message("stream", name="stdout", text=["x"]),
        message("display_data", data="text"),
        message("display_data", data={"text/plain": None}),
        message("display_data", data={1: "x", "": "y", "no slash": "z"}),
        message("update_display_data", data={"text/plain": "x"}),
        message("unheard_of", data={}),
    ],
)
def test_odd_messages_are_nothing(odd: Message):
    assert messages.event(odd) is None


def test_odd_parts_are_left_out():
    data = {"text/plain": ["a\n", "b"], "image/png": 5, "application/x+json": {"a": 1}}
    shown = messages.event(
        message("display_data", data=data, metadata=[], transient={"display_id": ["x"]})
    )
    assert shown == Display({"text/plain": "a\nb", "application/x+json": {"a": 1}}, {}, None)


@pytest.mark.parametrize("count", [True, -1, 1.5, "1", 2**60, None])
def test_an_execution_count_is_a_small_number(count: object):
    odd = message("execute_result", data={"text/plain": "x"}, execution_count=count)
    event = messages.event(odd)
    assert isinstance(event, ExecuteResult)
    assert event.execution_count is None


def test_an_error_of_anything_is_text():
    assert messages.error({"ename": 1, "traceback": {"a": 1}}) == Error("", "", ())
    assert messages.error({"traceback": ["a", 1, None]}).traceback == ("a", "", "")
