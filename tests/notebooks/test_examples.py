"""The example notebook, run for real as `make demo` runs it."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from live_service import ROOT, environment, serve
from nbformat import NotebookNode

from interpreter.rendering import output_text
from notebooks.examples import FIRST_STEPS
from notebooks.examples.__main__ import main
from notebooks.running import failed, read_notebook

MADE = {"first_steps.ipynb", "history.ipynb", "plot.png", "report.md"}
PIXELS = """
import sys
from PIL import Image
image = Image.open(sys.argv[1])
print(image.format, *image.size, len(image.convert("RGB").getcolors(1 << 24)))
"""


def demo(directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "notebooks.examples", "--output", directory],
        env=environment(TMPDIR=str(directory.parent), **env),  # for sockets: names have to be short
        cwd=directory.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """What the demo leaves, with a service of its own."""
    with TemporaryDirectory() as directory:
        output = Path(directory) / "output"
        done = demo(output, CELLSHELL_URL="")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4000:]
        assert "pandas counted" in done.stdout
        yield output


@pytest.fixture(scope="module")
def airports() -> list[dict[str, str]]:
    with (files("airportsdata") / "airports.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.box
def test_it_leaves_what_it_says_and_nothing_else(made: Path) -> None:
    assert set(os.listdir(made)) == MADE
    assert os.listdir(made.parent) == ["output"]


@pytest.mark.box
def test_the_report_has_the_numbers_of_the_file(made: Path, airports: list[dict[str, str]]) -> None:
    report = (made / "report.md").read_text()
    told = dict(re.findall(r"^- ([^:]+): (.*)$", report, re.MULTILINE))
    counts = Counter(each["country"] for each in airports)
    highest = max((each for each in airports if each["iata"]), key=lambda e: float(e["elevation"]))
    south = sum(float(each["lat"]) < 0 for each in airports) / len(airports)
    assert told == {
        "airports": str(len(airports)),
        "countries and territories": str(len(counts)),
        "most": "{1} {0}".format(*counts.most_common(1)[0]),
        "highest with an IATA code": f"{highest['name']} ({highest['country']}), "
        f"{float(highest['elevation']) * 0.3048:.0f} m",
        "south of the equator": f"{south:.1%}",
    }
    rows = re.findall(r"^\| ([A-Z]{2}) \| (\d+) \|$", report, re.MULTILINE)
    assert [int(number) for _, number in rows] == [n for _, n in counts.most_common(10)]
    assert all(counts[country] == int(number) for country, number in rows)


@pytest.mark.box
def test_the_plot_is_a_picture(made: Path) -> None:
    python = os.environ["CELLSHELL_TEST_PYTHON"]
    told = subprocess.check_output([python, "-c", PIXELS, made / "plot.png"], text=True).split()
    kind, width, height, colours = told[0], *map(int, told[1:])
    assert (kind, width > 1000, height > 400) == ("PNG", True, True)
    assert colours > 500


@pytest.mark.box
def test_every_cell_ran(made: Path) -> None:
    ran = read_notebook(made / "first_steps.ipynb")
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(map(failed, ran.cells))
    history = read_notebook(made / "history.ipynb")
    nbformat.validate(history)
    assert ["counts.iloc[0]" in history.cells[0].source, len(history.cells)] == [True, 3]


@pytest.mark.box
def test_it_runs_against_a_service_and_leaves_no_sandbox(directory: Path) -> None:
    from interpreter import Client

    with serve(directory / "home") as url:
        done = demo(directory / "output", CELLSHELL_URL=url)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4000:]
        assert f"with {url}" in done.stdout
        with Client(url) as client:
            assert client.list_sandboxes() == []
    assert set(os.listdir(directory / "output")) == MADE


def test_a_service_that_is_not_there_is_told(directory: Path) -> None:
    done = demo(directory / "output", CELLSHELL_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stderr) == (1, "A cell failed: see above.\n")
    assert "ServiceUnreachable" in done.stdout


def test_a_data_set_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "airportsdata", None)
    assert main(["--output", "/nonexistent/output"]) == 1
    assert "cellshell[data]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kept() -> NotebookNode:
    return read_notebook(FIRST_STEPS)


def test_the_notebook_is_kept_with_its_outputs(kept: NotebookNode) -> None:
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(map(failed, code))
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def test_the_kept_outputs_name_no_machine(kept: NotebookNode) -> None:
    texts = [output_text(output) for cell in kept.cells for output in cell.get("outputs", ())]
    assert not [text for text in texts if re.search(rf"/tmp|/root|/home/(?!user)|{ROOT}", text)]
