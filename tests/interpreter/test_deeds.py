"""What callers did besides running something: noted in order, bounded, told in the notebook."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asking import Python, Shell

from interpreter.deeds import Deeds
from interpreter.errors import FileNotFound
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from notebooks.records import notebook_of_session


async def _bytes(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def test_the_newest_are_kept(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path / "deeds" / "s", kept=2000)
    for number in range(500):
        deeds.note("write", path=f"/workspace/{number}", size=number)
    found = [deed.facts["size"] for deed in deeds]
    assert found == list(range(found[0], 500))
    assert 10 < len(found) < 100
    assert (tmp_path / "deeds" / "s").stat().st_size <= 4100


def test_a_torn_line_costs_itself(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path / "s")
    deeds.note("mkdir", path="a")
    with (tmp_path / "s").open("ab") as file:
        file.write(b'["2026\n')
    deeds.note("mkdir", path="b\n\ud800")
    assert [deed.facts["path"] for deed in deeds] == ["a", "b\n?"]


def test_none_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    assert list(Deeds(tmp_path / "none")) == []
    (tmp_path / "file").touch()
    Deeds(tmp_path / "file" / "s").note("mkdir", path="a")


@pytest.mark.box
async def test_in_the_notebook_of_the_session(
    sandbox: Sandbox, session: Session, python: Python, shell: Shell
) -> None:
    await session.files.write("data.csv", _bytes(b"a,b\n", b"1,2\n"))
    await session.set_env({"SECRET": "value", "OTHER": None})
    await python("1")
    await session.files.mkdir("sub")
    await session.files.move("data.csv", "sub/`odd`.csv")
    await session.files.copy("sub/`odd`.csv", "copy.csv")
    await session.files.write("copy.csv", _bytes(b"more"), append=True)
    with pytest.raises(FileNotFound):
        await session.files.delete("missing")
    await session.files.delete("copy.csv")
    os.close((await session.files.read("sub/`odd`.csv")).fd)
    await shell("true")
    cells = (await notebook_of_session(sandbox, session)).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown", "code"]
    assert cells[0].source == "- wrote `/workspace/data.csv` (8 bytes)\n- set `OTHER`, `SECRET`"
    assert cells[2].source.splitlines() == [
        "- made the directory `/workspace/sub`",
        "- moved `/workspace/data.csv` to `` /workspace/sub/`odd`.csv ``",
        "- copied `` /workspace/sub/`odd`.csv `` to `/workspace/copy.csv`",
        "- appended to `/workspace/copy.csv` (12 bytes)",
        "- deleted `/workspace/copy.csv`",
    ]
    told = cells[0].metadata.cellshell
    assert [deed.verb for deed in told.deeds] == ["write", "set_env"]
    assert "value" not in str(cells)


@pytest.mark.box
async def test_many_are_told_in_short(sandbox: Sandbox, session: Session) -> None:
    for number in range(60):
        await session.files.write(f"many/{number}", _bytes(b""))
    [cell] = (await notebook_of_session(sandbox, session)).cells
    assert cell.source.splitlines()[-1] == "- and 10 more"
    await sandbox.delete_session(session.id)
    assert list(session.deeds) == []
