"""Results as notebooks show them: text, and HTML in which nothing from a sandbox is active."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interpreter.models import CodeResult, ExecResult, Notice

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
PRE = "margin:0;padding:0;white-space:pre-wrap;overflow-wrap:anywhere;background:none"
ALARM = f"{PRE};color:#b00020"
FRAME = "width:100%;height:20em;border:0;resize:vertical;overflow:auto"
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Colours and other terminal control."""


def exec_bundle(
    result: ExecResult, include: object = None, exclude: object = None
) -> dict[str, str]:
    """A command's result as a MIME bundle, by IPython's protocol."""
    end = _end_of(result)
    stderr = f"<pre style='{ALARM}'>{_clean(result.stderr)}</pre>" if result.stderr else ""
    return {
        "text/plain": "\n".join(
            part.rstrip("\n") for part in (result.stdout, result.stderr, end) if part
        ),
        "text/html": _pre(result.stdout) + stderr + _remarks(result.notices, end),
    }


def code_bundle(
    result: CodeResult, include: object = None, exclude: object = None
) -> dict[str, str]:
    """The outputs of a run of code, in order, as one MIME bundle."""
    end = "" if result.status in ("ok", "error") else result.status
    texts = [output_text(output) for output in result.outputs]
    return {
        "text/plain": "\n".join(text.rstrip("\n") for text in (*texts, end) if text),
        "text/html": "".join(map(_output, result.outputs)) + _remarks(result.notices, end),
    }


def output_text(output: dict[str, Any]) -> str:
    """What a terminal would show of an nbformat output; empty when that is nothing."""
    if output.get("output_type") == "stream":
        return joined(output.get("text"))
    if output.get("output_type") == "error":
        return "\n".join(str(line) for line in output.get("traceback") or ())
    data = output.get("data")
    return joined(data.get("text/plain")) if isinstance(data, dict) else ""


def joined(text: Any) -> str:
    """A text of nbformat, which may be a list of lines."""
    if isinstance(text, list):
        return "".join(str(line) for line in text)
    return text if isinstance(text, str) else ""


def plain(text: str) -> str:
    """Text without terminal control."""
    return ESCAPES.sub("", text)


def _end_of(result: ExecResult) -> str:
    if result.timed_out:
        return f"timed out after {result.duration:.1f} s"
    if result.cancelled:
        return "cancelled"
    return f"exit code {result.exit_code}" if result.exit_code else ""


def _remarks(notices: list[Notice], end: str) -> str:
    remarks = [notice.message for notice in notices]
    return "".join(f"<div><em>{_clean(each)}</em></div>" for each in (*remarks, end) if each)


def _output(output: dict[str, Any]) -> str:
    match output.get("output_type"):
        case "stream":
            return _pre(output_text(output), PRE if output.get("name") == "stdout" else ALARM)
        case "error":
            text = output_text(output) or f"{output.get('ename')}: {output.get('evalue')}"
            return _pre(text, ALARM)
        case _:
            data = output.get("data")
            return next(_displays(data), "") if isinstance(data, dict) else ""


def _displays(data: dict[str, Any]) -> Iterator[str]:
    """Ways to show a display, best first."""
    for kind in IMAGES:
        if content := re.sub(r"\s+", "", joined(data.get(kind))):
            yield f"<img src='data:{kind};base64,{html.escape(content)}'>"
    if svg := joined(data.get("image/svg+xml")):
        # As an image, not as markup: no script in it runs.
        yield f"<img src='data:image/svg+xml,{_percent(svg)}'>"
    if markup := joined(data.get("text/html")):
        yield f"<iframe sandbox style='{FRAME}' srcdoc='{html.escape(markup)}'></iframe>"
    for kind in ("text/markdown", "text/latex", "text/plain"):
        if text := joined(data.get(kind)):
            yield _pre(text)


def _pre(text: str, style: str = PRE) -> str:
    return f"<pre style='{style}'>{_clean(text)}</pre>" if text else ""


def _clean(text: str) -> str:
    return html.escape(plain(text))


def _percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "replace"))
