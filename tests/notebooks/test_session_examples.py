"""The examples that run in a session, run for real, and what is kept of them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import httpx
import nbformat
import pytest
from live_service import ROOT
from nbformat import NotebookNode

from interpreter import AsyncSandbox
from interpreter.rendering import output_text
from notebooks.differences import compare
from notebooks.examples import FIRST_STEPS
from notebooks.running import read_notebook

EXAMPLES = sorted(set(FIRST_STEPS.parent.glob("*.ipynb")) - {FIRST_STEPS})
NEED_DENO = {"languages"}
MACHINES = re.compile(rf"/tmp|/root|/home|{re.escape(str(ROOT))}")


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.mark.box
async def test_it_runs_and_comes_to_what_is_kept(sandbox: AsyncSandbox, example: Path) -> None:
    if example.stem in NEED_DENO and importlib.util.find_spec("deno") is None:
        pytest.skip("deno is not installed")
    kept = read_notebook(example)
    result = await sandbox.run_notebook(kept)
    assert (result.status, result.failed) == ("ok", [])
    for cell in result.notebook["cells"]:
        cell["metadata"].pop("cellshell", None)
    assert compare(kept.cells, result.notebook["cells"], tolerance=0.05) == []


@pytest.mark.box
async def test_the_report_takes_parameters(sandbox: AsyncSandbox) -> None:
    parameters = {"sides": 20, "throws": 500}
    result = await sandbox.run_notebook(_kept("report"), parameters=parameters)
    assert result.status == "ok"
    told = json.dumps(result.notebook["cells"])
    assert "**500 throws of two dice with 20 sides**" in told
    assert "| 21 |" in told


@pytest.mark.box
async def test_the_application_is_reached_from_outside(sandbox: AsyncSandbox, service: str) -> None:
    """As its prose says, while it runs: all cells but the last, which ends it."""
    notebook = _kept("web_app")
    del notebook.cells[-1]
    assert (await sandbox.run_notebook(notebook)).status == "ok"
    [told] = [cell.source for cell in notebook.cells if "from outside\n" in cell.source]
    [place] = re.findall(r"8000(/v1/.*/)`", told)
    async with httpx.AsyncClient(base_url=service, trust_env=False) as http:
        page = await http.get(place.replace("default", sandbox.id))
    assert "<li>learn Icelandic" in page.text


def _kept(name: str) -> NotebookNode:
    return read_notebook(FIRST_STEPS.with_stem(name))


def test_it_is_kept_with_its_outputs(example: Path) -> None:
    kept = read_notebook(example)
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2
    texts = [output_text(output) for cell in code for output in cell.outputs]
    assert not [text for text in texts if MACHINES.search(text)]


def test_there_are_five_and_they_are_in_the_docs() -> None:
    docs = (ROOT / "docs" / "notebooks.md").read_text()
    assert len(EXAMPLES) >= 5
    assert all(f"examples/{path.name}" in docs for path in [*EXAMPLES, FIRST_STEPS])
