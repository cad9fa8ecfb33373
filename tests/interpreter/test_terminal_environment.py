from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from interpreter.environment import Environment
from interpreter.terminal_environment import (
    Reports,
    TerminalEnvironment,
    environment_script,
)

VALUES = [
    "",
    "'",
    "''\\''",
    '"',
    "$x $(id) `id`",
    "\n\n",
    "a\\",
    "é\u2028\U0001f600",
    "\udcc3'",
    "!x",
    "*",
]


def test_script_sets_exactly_these_values() -> None:
    changes: dict[str, str | None] = {f"V{n}": value for n, value in enumerate(VALUES)}
    names = " ".join(f'"$V{n}"' for n in range(len(VALUES)))
    check = f"\n[[ -v GONE || -v 'a' ]] && exit 9\nprintf '%s\\0' {names}"
    script = environment_script(changes | {"GONE": None, "a-b": "x", "x;id": "x", "PS1": "x"})
    done = subprocess.run(
        ["bash", "-c", b"GONE=1\n" + script + check.encode()], capture_output=True, check=True
    )
    assert [os.fsdecode(value) for value in done.stdout.split(b"\0")[:-1]] == VALUES
    assert done.stderr == b""


def test_script_leaves_alone_what_is_not_as_expected() -> None:
    script = environment_script(
        {"A": "new", "B": "new", "C": None, "D": "new", "E": "new"},
        expected={"A": "old'", "B": "old", "C": "old"},
    )
    before = b'set -u; export A="old\'" B=changed C=changed D=changed; E=not-exported\n'
    after = b"\necho $A $B $C $D $E"
    done = subprocess.run(["bash", "-c", before + script + after], capture_output=True, check=True)
    assert done.stdout == b"new changed changed changed new\n"


def report(
    kind: bytes = b"state", version: bytes = b"0", cwd: bytes = b"/", exports: bytes = b""
) -> bytes:
    return b"\0" + b"\0".join([b"cellshell", kind, version, cwd, exports, b"end", b""])


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\0" * 100,
        report()[:-8],
        report(kind=b"other"),
        report(version=b"-1"),
        report(version=b"9" * 5000),
        report(cwd=b"/" * 5000),
        b"\0cellshell\0state\x000",
        b"\xff\xfe" * 1000,
        b"x" * (9 * 1024 * 1024),
        b"\0cellshell\0" + b"x" * (9 * 1024 * 1024),
    ],
)
def test_reports_survive_anything_in_the_pipe(noise: bytes) -> None:
    reports = Reports()
    for start in range(0, len(noise), 65536):
        assert reports.feed(noise[start : start + 65536]) == []
    whole = report(b"told", b"7", b"/tm\xffp", b'declare -x A="1"\ndeclare -x TERM="x"\n')
    [found] = [found for byte in whole for found in reports.feed(bytes([byte]))]
    assert (found.kind, found.version) == ("told", 7)
    assert found.place == ({"A": "1"}, "/tm\udcffp")


async def test_hostile_reports_change_nothing_beyond_bounds(tmp_path: Path) -> None:
    environment = Environment(cwd="/", variables={"A": "1"}, own={})
    terminal = TerminalEnvironment(environment, tmp_path / "a" / "b" / "c")
    terminal.open()
    reports = Reports()
    terminal._take(reports.feed(report(exports=b'declare -x A="1"\n')))
    large = b"".join(b'declare -x V%d="%s"\n' % (n, b"x" * 100_000) for n in range(20))
    terminal._take(reports.feed(report(cwd=b"relative", exports=large)))
    assert environment.cwd == "/"
    assert "A" not in environment.variables
    assert 10 == len(environment.variables) == 1024 * 1024 // 100_000
    terminal.remove()
    assert not (tmp_path / "a" / "b" / "c").exists()
