from __future__ import annotations

import os
import subprocess

import pytest

from interpreter.declarations import parse, quote

VALUES = [
    "",
    "plain",
    "with space",
    "line\nbreak\n",
    "tab\tand\r",
    "'single' and \"double\"",
    "$HOME `id` $(id) \\ \\n !x",
    "ünïcödé ☃ 漢字",
    "\x01\x1b[31m\x7f",
    "trailing\\",
    'FAKE="1"\nexport OTHER="2"',
    os.fsdecode(b"\xff\xfe broken"),
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("posix", [True, False])
def test_what_bash_exports_is_read_back(value: str, posix: bool) -> None:
    mode = "set -o posix; " if posix else ""
    output = subprocess.run(
        ["bash", "-c", f"{mode}export -p"],
        env={"NAME": value, "LAST": "end", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True,
        check=True,
    ).stdout
    found = parse(output)
    assert found["NAME"] == value
    assert found["LAST"] == "end"
    assert "OTHER" not in found


@pytest.mark.parametrize("value", VALUES)
def test_a_quoted_word_stands_for_exactly_its_value(value: str) -> None:
    script = b"printf %s " + os.fsencode(quote(value))
    assert subprocess.run(["bash", "-c", script], capture_output=True).stdout == os.fsencode(value)


@pytest.mark.parametrize("text", [b"", b"garbage", b'export A="1', b"export A\n", b"\xff" * 1000])
def test_what_is_no_declaration_is_skipped(text: bytes) -> None:
    assert parse(text) == {}
