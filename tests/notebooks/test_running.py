"""Notebooks run on this machine, in a real kernel of this Python."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebooks.running import failed, read_notebook, run_notebook, write_notebook


class Witness:
    """Keeps what it was told."""

    def __init__(self, on_begin: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self._on_begin = on_begin

    def begins(self, cell: NotebookNode) -> None:
        self.told.append(f"begins {cell.id}")
        self._on_begin()

    def ended(self, cell: NotebookNode) -> None:
        self.told.append(f"ended {cell.id}")


def notebook(*sources: str) -> NotebookNode:
    cells = [new_code_cell(source, id=f"c{n}") for n, source in enumerate(sources)]  # type: ignore[no-untyped-call]
    made: NotebookNode = new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    return made


async def run(document: NotebookNode, cwd: Path, witness: Witness | None = None) -> NotebookNode:
    env = {**os.environ, "GIVEN": "a b"}
    return await run_notebook(document, cwd=cwd, env=env, listener=witness or Witness())


async def test_cells_have_their_outputs_and_the_given_one_stays_as_it_was(tmp_path: Path) -> None:
    given = notebook("import os; name = os.environ['GIVEN']", "", "print(os.getcwd()); name")
    given.cells.insert(1, new_markdown_cell("# text", id="md"))  # type: ignore[no-untyped-call]
    given.cells[0].outputs = [{"output_type": "stream", "name": "stdout", "text": "old"}]
    witness = Witness()
    ran = await run(given, tmp_path, witness)
    assert [cell.get("execution_count") for cell in ran.cells] == [1, None, None, 2]
    assert ran.cells[0].outputs == []
    printed, value = ran.cells[3].outputs
    assert (printed.text, value.data["text/plain"]) == (f"{tmp_path}\n", "'a b'")
    assert given.cells[3].outputs == []
    assert witness.told == [f"{what} {id}" for id in ("c0", "md", "c1", "c2") for what in
                            ("begins", "ended")]  # fmt: skip


async def test_it_ends_at_the_first_error(tmp_path: Path) -> None:
    ran = await run(notebook("1 / 0", "open('second', 'w')"), tmp_path)
    assert [failed(cell) for cell in ran.cells] == [True, False]
    assert ran.cells[0].outputs[0].ename == "ZeroDivisionError"
    assert os.listdir(tmp_path) == []


async def test_a_kernel_that_dies_is_an_error(tmp_path: Path) -> None:
    ran = await run(notebook("import os; os.kill(os.getpid(), 9)", "2"), tmp_path)
    assert ran.cells[0].outputs[-1].evalue == "the kernel ended: signal SIGKILL"
    assert ran.cells[1].outputs == []


async def test_cancelled_it_interrupts_and_ends_the_kernel(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code = (
        "import atexit, os, time\n"
        "atexit.register(lambda: open('farewell', 'w').close())\n"
        "open('fifo', 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    task = asyncio.create_task(run(notebook(code), tmp_path))
    pid = int(await asyncio.to_thread((tmp_path / "fifo").read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "farewell").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    document = notebook("'ä'\n")
    write_notebook(document, tmp_path / "a b.ipynb")
    assert read_notebook(tmp_path / "a b.ipynb").cells == document.cells
