"""Results in notebooks: what is shown, and that nothing from a sandbox is active there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from interpreter import CodeResult, ExecResult
from interpreter.models import Notice

PIXEL = "iVBORw0KGgo="


class Reader(HTMLParser):
    """The tags, and the text outside of them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def command(**fields: Any) -> ExecResult:
    given = {"id": "x", "command": "c", "exit_code": 0, "duration": 1.25, "cwd": "/workspace"}
    return ExecResult.model_validate(given | fields)


def code(*outputs: Any, **fields: Any) -> CodeResult:
    given: dict[str, Any] = {"id": "x", "context": "python", "language": "python", "status": "ok"}
    given |= {"execution_count": 1, "outputs": list(outputs), "duration": 0.5, "cwd": "/workspace"}
    return CodeResult.model_validate(given | fields)


def display(**data: Any) -> dict[str, Any]:
    named = {kind.replace("_", "/", 1).replace("_", "+"): value for kind, value in data.items()}
    return {"output_type": "display_data", "data": named, "metadata": {}}


def test_ipython_takes_the_bundle() -> None:
    formatter: Any = DisplayFormatter()
    data, _ = formatter.format(command(stdout="hello\n"))
    assert data["text/plain"] == "hello"
    assert Reader(data["text/html"]).text == "hello\n"


def test_a_command_shows_both_streams_and_how_it_ended() -> None:
    result = command(stdout="out\n", stderr="<b>err</b>\n", exit_code=3)
    result.notices.append(Notice(code="shell_restarted", message="a <fresh> shell"))
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == "out\n<b>err</b>\nexit code 3"
    seen = Reader(bundle["text/html"])
    assert [tag for tag, _ in seen.tags] == ["pre", "pre", "div", "em", "div", "em"]
    assert seen.text == "out\n<b>err</b>\na <fresh> shellexit code 3"


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"timed_out": True, "exit_code": None}, "timed out after 1.2 s"),
        ({"cancelled": True, "exit_code": None}, "cancelled"),
        ({}, ""),
    ],
)
def test_the_end_of_a_command(fields: dict[str, Any], end: str) -> None:
    assert command(**fields)._repr_mimebundle_()["text/plain"] == end


def test_terminal_control_is_left_out_of_html() -> None:
    result = code(
        {"output_type": "stream", "name": "stdout", "text": "\x1b[1;31mred\x1b[0m\x1b]0;t\x07!"}
    )
    assert Reader(result._repr_mimebundle_()["text/html"]).text == "red!"


def test_a_picture_is_an_image_and_wins_over_its_text() -> None:
    shown = display(image_png=PIXEL, text_plain="<Figure>", text_html="<b>no</b>")
    [(tag, attributes)] = Reader(code(shown)._repr_mimebundle_()["text/html"]).tags
    assert (tag, attributes["src"]) == ("img", f"data:image/png;base64,{PIXEL}")


@pytest.mark.parametrize(
    "hostile",
    [
        display(image_png="' onerror='alert(1)"),
        display(image_png=["x'><script>alert(1)</script>"]),
        {"output_type": "display_data", "data": {"image/svg+xml": "'><script>alert(1)</script>"}},
        display(text_html="'></iframe><script>alert(1)</script>"),
        display(text_plain="<script>alert(1)</script>"),
        display(text_markdown="<script>alert(1)</script>"),
        {"output_type": "stream", "name": "'><script>", "text": "<script>alert(1)</script>"},
        {"output_type": "error", "ename": "<script>", "evalue": "<img onerror=x>"},
    ],
)
def test_nothing_from_the_sandbox_is_active(hostile: dict[str, Any]) -> None:
    for tag, attributes in Reader(code(hostile)._repr_mimebundle_()["text/html"]).tags:
        assert tag in ("pre", "img", "iframe")
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "iframe" or attributes["sandbox"] is None, "no allowance of any kind"
        assert re.match(r"data:image/", attributes.get("src") or "data:image/")


def test_html_is_shown_in_a_frame_without_rights() -> None:
    [(tag, attributes)] = Reader(
        code(display(text_html="<table>'\"&</table>"))._repr_mimebundle_()["text/html"]
    ).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == "<table>'\"&</table>"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"output_type": "display_data"},
        {"output_type": "display_data", "data": {"image/png": {"a": 1}, "text/html": 3}},
        {"output_type": "display_data", "data": [1]},
        {"output_type": "stream", "text": None},
        {"output_type": "error", "traceback": [1, None]},
        {"output_type": "stream", "name": "stdout", "text": "\ud800"},
    ],
)
def test_odd_outputs_do_not_raise(odd: dict[str, Any]) -> None:
    assert isinstance(code(odd)._repr_mimebundle_()["text/html"], str)


def test_a_run_that_did_not_end_well_says_so() -> None:
    assert code(status="timeout")._repr_mimebundle_()["text/plain"] == "timeout"
    assert code(status="died")._repr_mimebundle_()["text/html"] == "<div><em>died</em></div>"
