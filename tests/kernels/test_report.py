from __future__ import annotations

import json
from typing import Any

import pytest

from kernels import report
from kernels.report import Report


def parse(document: Any) -> Report | None:
    return report.parse({"cellshell": json.dumps(document)})


def test_a_report_is_read():
    told = {"version": 3, "cwd": "/new", "set": {"A": "\udcff\n'"}, "unset": ["B"], "exit": 0}
    assert parse(told) == Report(3, "/new", {"A": "\udcff\n'"}, ("B",), exit=0)


@pytest.mark.parametrize("told", [None, 5, {}, "", "{", "[]", "[" * 100_000, '{"a":' * 5000])
def test_what_is_none_is_none(told: object):
    assert report.parse({"cellshell": told}) is None


@pytest.mark.parametrize(
    "told",
    [
        {"version": -1, "cwd": "relative", "set": [], "unset": {}, "exit": 1000},
        {"version": True, "cwd": "/a\0b", "set": {"A=B": "x", "": "y", "N": "a\0"}, "exit": "0"},
        {"version": 2**70, "cwd": "/" + "x" * 5000, "set": {"A": 1}, "unset": [1, "", "A=", None]},
        {"cwd": ["/"], "set": {"A": "\ud800", "B": "x" * 200_000}, "exit": True},
    ],
)
def test_odd_parts_are_left_out(told: object):
    assert parse(told) == Report(0)
