"""What is different between two runs of a notebook, but for what differs by nature."""

from __future__ import annotations

import base64
import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpreter.rendering import joined, plain

CLOCK = r"\d\d?:\d\d:\d\d(?:[.,]\d+)?"
NUMBER = r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?"
BY_NATURE = (
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(rf"\b(?:\d{{4}}-\d\d-\d\d[T ])?{CLOCK}(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(rf"{NUMBER}[ \t]?(?:ns|[µμ]s|us|ms|s|secs?|seconds)\b"), "<duration>"),
    (re.compile(r"(?i)\bpid(\W{1,3})\d+"), r"pid\1<number>"),
    (re.compile(r"/tmp/[\w.-]+"), "<temporary>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{10,64}\b"), "<id>"),
)
"""What is another in every run. A date without a time of day is none of it: it may be data."""
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
FLOAT = 1e-9
"""Relative difference of numbers in JSON that is none."""
MOST_LINES = 12


@dataclass(frozen=True)
class Difference:
    """Of one cell: what is different, and how."""

    cell: int
    source: str
    what: str
    detail: str = ""


def compare(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: float = 0.02
) -> list[Difference]:
    """Of the cells of two notebooks with the same sources. `tolerance` is how far pictures may be
    from each other on average, 1 being black and white."""
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if old["cell_type"] != "code":
            continue
        for what, detail in _cell(old, new, tolerance):
            found.append(Difference(number, joined(old["source"]), what, detail))
    return found


def _cell(
    old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float
) -> Iterator[tuple[str, str]]:
    codes = [_exit_code(cell) for cell in (old, new)]
    if codes[0] != codes[1]:
        yield "exit status", f"{codes[0]} before, {codes[1]} now"
    for name in ("stdout", "stderr"):
        texts = [_stream(cell, name) for cell in (old, new)]
        if texts[0] != texts[1]:
            yield name, _lines(*texts)
    errors = [_errors(cell) for cell in (old, new)]
    if errors[0] != errors[1]:
        yield "error", f"{errors[0] or 'none'} before, {errors[1] or 'none'} now"
    yield from _displays(_bundles(old), _bundles(new), tolerance)


def _displays(
    old: list[dict[str, Any]], new: list[dict[str, Any]], tolerance: float
) -> Iterator[tuple[str, str]]:
    if len(old) != len(new):
        yield "outputs", f"{len(old)} before, {len(new)} now"
        return
    for before, after in zip(old, new, strict=True):
        if before.keys() != after.keys():
            kinds = [", ".join(sorted(each)) for each in (before, after)]
            yield "outputs", f"of the types {kinds[0]} before, {kinds[1]} now"
            continue
        for mime in before:
            if detail := _data(mime, before[mime], after[mime], tolerance):
                yield mime, detail


def _data(mime: str, old: Any, new: Any, tolerance: float) -> str:
    """What is different; empty: nothing."""
    if mime in IMAGES:
        return _picture(joined(old), joined(new), tolerance)
    if mime.endswith("json"):
        return "" if _alike(old, new) else _lines(str(old), str(new))
    texts = [normal(joined(each)) for each in (old, new)]
    return "" if texts[0] == texts[1] else _lines(*texts)


def normal(text: str) -> str:
    """Without what is another in every run: ids, addresses, times."""
    text = plain(text)
    for pattern, name in BY_NATURE:
        text = pattern.sub(name, text)
    return text


def _alike(old: Any, new: Any) -> bool:
    match old, new:
        case bool() | None, _:
            return old is new
        case int() | float(), int() | float():
            return math.isclose(old, new, rel_tol=FLOAT) and not isinstance(new, bool)
        case str(), str():
            return normal(old) == normal(new)
        case Mapping(), Mapping():
            return old.keys() == new.keys() and all(_alike(old[n], new[n]) for n in old)
        case list(), list():
            return len(old) == len(new) and all(map(_alike, old, new))
    return False


def _picture(old: str, new: str, tolerance: float) -> str:
    if old == new:
        return ""
    try:
        from PIL import Image, ImageChops, ImageStat
    except ImportError:
        return "other bytes; to compare pictures: pip install 'cellshell[notebooks]'"
    try:
        pictures = [
            Image.open(io.BytesIO(base64.b64decode(each))).convert("RGBA") for each in (old, new)
        ]
    except (ValueError, SyntaxError, OSError, Image.DecompressionBombError):
        return "cannot be read as a picture"
    if pictures[0].size != pictures[1].size:
        sizes = ["{} x {}".format(*picture.size) for picture in pictures]
        return f"{sizes[0]} before, {sizes[1]} now"
    means = ImageStat.Stat(ImageChops.difference(*pictures)).mean
    distance = sum(means) / len(means) / 255
    return "" if distance <= tolerance else f"{distance:.3f} apart, {tolerance:g} is allowed"


def _stream(cell: Mapping[str, Any], name: str) -> str:
    parts = (
        joined(output["text"])
        for output in cell["outputs"]
        if output["output_type"] == "stream" and output["name"] == name
    )
    return normal("".join(parts))


def _errors(cell: Mapping[str, Any]) -> str:
    found = (output for output in cell["outputs"] if output["output_type"] == "error")
    return "; ".join(normal(f"{output['ename']}: {output['evalue']}") for output in found)


def _bundles(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [output["data"] for output in cell["outputs"] if "data" in output]


def _exit_code(cell: Mapping[str, Any]) -> object:
    told = cell["metadata"].get("cellshell")
    return told.get("exit_code") if isinstance(told, Mapping) else None


def _lines(old: str, new: str) -> str:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    told = [line[:200] for line in lines if not line.startswith("@@")]
    if len(told) > MOST_LINES:
        told[MOST_LINES:] = [f"and {len(told) - MOST_LINES} lines more"]
    return "\n".join(told) or "differs in its line ends"
