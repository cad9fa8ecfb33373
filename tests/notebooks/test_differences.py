"""What counts as a difference between two runs of a notebook."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from notebooks.differences import compare, normal


def cell(*outputs: dict[str, Any], source: str = "x", **told: Any) -> dict[str, Any]:
    metadata = {"cellshell": told} if told else {}
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [*outputs]}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: Any) -> dict[str, Any]:
    data = {name.replace("_", "/"): value for name, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def error(evalue: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": "E", "evalue": evalue, "traceback": ["other"]}


def picture(shade: int, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_table_of_numbers_has_no_durations() -> None:
    one, other = (f"std      1.29{digit}\nmin      1.00\n" for digit in "09")
    assert len(compare([cell(stream(one))], [cell(stream(other))])) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("at 0x7f00aa", "at 0x7f11bb"),
        ("990e467f-5f25-4b05-acf9-270d5a3eed87", "00000000-5f25-4b05-acf9-270d5a3eed87"),
        ("2026-11-27 22:08:43.5", "2027-01-02 00:00:00"),
        ("2026-11-27T22:08:43Z", "2027-01-02T00:00:00+01:00"),
        ("Fri 22:08:43 UTC", "Fri 1:08:43 UTC"),
        ("took 1.5 ms", "took 900 µs"),
        ("[1] pid 123 pid=5", "[1] pid 4 pid=66"),
        ("/tmp/tmp.Xy12", "/tmp/tmp.Ab9"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("commit 0a1b2c3d4e5f60718293", "commit ffffffffffffffff000a"),
    ],
)
def test_what_differs_by_nature(one: str, other: str) -> None:
    assert normal(one) == normal(other)
    assert compare([cell(stream(one))], [cell(stream(other))]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "2"), ("2026-11-27", "2026-11-28"), ("a\n", "a"), ("1234567890123", "1234567890124")],
)
def test_what_does_not(one: str, other: str) -> None:
    [difference] = compare([cell(stream(one))], [cell(stream(other))])
    assert (difference.cell, difference.what) == (0, "stdout")
    assert difference.detail


def test_streams_are_put_together() -> None:
    pieces = cell(stream("a"), stream("!", "stderr"), stream("b"))
    assert compare([pieces], [cell(stream("ab"), stream("!", "stderr"))]) == []


def test_errors_and_exit_status() -> None:
    assert compare([cell(error("at 0x1"))], [cell(error("at 0x2"))]) == []
    [difference] = compare([cell(error("a"))], [cell()])
    assert difference.detail == "E: a before, none now"
    [difference] = compare([cell(exit_code=0)], [cell(exit_code=1)])
    assert difference.what == "exit status"


def test_data() -> None:
    one = shown(text_plain="1", application_json={"a": [1.0, "0x1f", None, True]})
    near = shown(text_plain="1", application_json={"a": [1.0 + 1e-12, "0x2f", None, True]})
    assert compare([cell(one)], [cell(near)]) == []
    far = shown(text_plain="1", application_json={"a": [1.1, "0x1f", None, True]})
    [difference] = compare([cell(one)], [cell(far)])
    assert difference.what == "application/json"
    [difference] = compare([cell(one)], [cell(shown(text_plain="1"))])
    assert difference.what == "outputs"
    [difference] = compare([cell(one)], [cell()])
    assert difference.detail == "1 before, 0 now"


def test_pictures() -> None:
    def of(data: str) -> list[dict[str, Any]]:
        return [cell(shown(image_png=data))]

    base = of(picture(100))
    assert compare(base, of(picture(102))) == []
    assert compare(base, of(picture(110)), tolerance=0.1) == []
    [difference] = compare(base, of(picture(200)))
    assert "apart" in difference.detail
    [difference] = compare(base, of(picture(100, (9, 8))))
    assert difference.detail == "8 x 8 before, 9 x 8 now"
    [difference] = compare(base, of("AAAA"))
    assert "cannot be read" in difference.detail


def test_cells_of_prose_and_long_differences() -> None:
    prose = {"cell_type": "markdown", "source": "a", "metadata": {}}
    assert compare([prose], [prose]) == []
    text = "".join(f"{n}\n" for n in range(100))
    [difference] = compare([cell(stream(text))], [cell()])
    assert difference.detail.endswith("and 88 lines more")
