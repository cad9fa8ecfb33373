"""`cellshell notebook run`, `export` and `replay`, against a service of their own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from live_service import serve

from api.command_notebook import _paired, parameters
from interpreter.errors import InvalidRequest
from tests.api.commanding import Command

box = pytest.mark.box


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def command(service: str, tmp_path: Path) -> Command:
    return Command(service, tmp_path)


def write(path: Path, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@box
def test_a_notebook_runs(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "word, n = 'default', 1", "print(word * n)", "word")
    status, out, _ = command("notebook", "run", "a.ipynb", "-p", "word", "ab", "-p", "n", "2")
    assert (status, out) == (0, b"abab\n'ab'\n")
    assert not (tmp_path / "a.ran.ipynb").exists()
    status, out, err = command("notebook", "run", "a.ipynb", "-p", "n=3", "-o", "out/b.ipynb")
    assert (status, out, err) == (0, b"", "cellshell: wrote out/b.ipynb\n")
    ran = read(tmp_path / "out" / "b.ipynb")
    assert ran["cells"][2]["outputs"][0]["text"] == "defaultdefaultdefault\n"
    nbformat.validate(nbformat.from_dict(ran))


@box
def test_what_was_run_is_kept_when_it_is_given_up(command: Command, tmp_path: Path) -> None:
    slow = "print('a'); print('b', flush=True); open('ready', 'w'); import time; time.sleep(60)"
    write(tmp_path / "a.ipynb", "n = 1", "n", slow, "2")
    words = ("notebook", "run", "a.ipynb", "-s", "given-up", "-p", "n", "7", "-o", "b.ipynb")
    running = command.start(*words)
    assert command("exec", "-s", "given-up", "until [ -e ready ]; do sleep 0.1; done")[0] == 0
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (130, b"cellshell: wrote b.ipynb\n")
    ran = nbformat.read(tmp_path / "b.ipynb", 4)
    nbformat.validate(ran)
    outputs = [[output.get("text") or output.data for output in c.outputs] for c in ran.cells]
    assert outputs == [[], [{"text/plain": "7"}], ["a\nb\n"], []]
    before = (tmp_path / "b.ipynb").read_bytes()
    words = ("notebook", "run", "b.ipynb", "-o", "b.ipynb", "--url", "http://127.0.0.1:9")
    assert command(*words)[0] == 1
    assert (tmp_path / "b.ipynb").read_bytes() == before


@box
def test_a_notebook_that_fails(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "pass", "1 / 0", "print('on')")
    status, out, err = command("notebook", "run", "a.ipynb", "-s", "failing", "-o", "b.ipynb")
    assert (status, out) == (1, b"")
    assert "cell 2 failed: 1 / 0" in err
    assert read(tmp_path / "b.ipynb")["cells"][1]["outputs"][0]["ename"] == "ZeroDivisionError"
    status, out, _ = command("notebook", "run", "a.ipynb", "-s", "failing", "--go-on")
    assert (status, out) == (1, b"on\n")
    write(tmp_path / "slow.ipynb", "import time; time.sleep(20)")
    status, _, err = command("notebook", "run", "slow.ipynb", "-s", "failing", "--timeout", "0.5")
    assert status == 124
    assert "the time is over" in err
    command("rm", "failing")


def test_what_is_no_notebook(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    status, _, err = command("notebook", "run", "a.ipynb")
    assert status == 2
    assert "expected a notebook" in err
    assert command("notebook", "run", "none.ipynb")[0] == 1
    assert command("export", "a.docx")[0] == 2
    assert command("replay", "no-such-sandbox")[0] == 2
    assert command("replay", "a.ipynb", "--file", "x")[0] == 2


@box
def test_export(command: Command, tmp_path: Path) -> None:
    command("exec", "-s", "told", "export WORD=word; echo from bash")
    plot = "import matplotlib.pyplot as plt; plt.plot([1]); print('from python')"
    command("run", "-s", "told", "-c", plot)
    evil = "from IPython.display import HTML; HTML('<b>bold</b><script>alert(1)</script>')"
    command("run", "-s", "told", "-c", evil)
    for suffix in ("ipynb", "py", "md", "html"):
        status, _, err = command("export", f"out/session.{suffix}", "-s", "told")
        assert (status, f"wrote out/session.{suffix}" in err) == (0, True), err
    out = tmp_path / "out"
    notebook = read(out / "session.ipynb")
    nbformat.validate(nbformat.from_dict(notebook))
    assert notebook["cells"][0]["source"] == ["%%bash\n", "export WORD=word; echo from bash"]
    assert notebook["cells"][0]["outputs"][0]["text"] == ["from bash\n"]
    script = (out / "session.py").read_text()
    assert "# %%" in script
    compile(script, "session.py", "exec")
    text = (out / "session.md").read_text()
    assert "from bash" in text
    pictures = list((out / "session_files").glob("*.png"))
    assert len(pictures) == 1
    assert f"session_files/{pictures[0].name}" in text
    page = (out / "session.html").read_text()
    assert "data:image/png;base64," in page
    assert "<b>bold</b>" in page
    assert "<script>alert(1)</script>" not in page
    command("export", "trusted.html", "-s", "told", "--trust")
    assert "<script>alert(1)</script>" in (tmp_path / "trusted.html").read_text()
    command("export", "one.ipynb", "-s", "told", "--context", "python")
    assert len(read(tmp_path / "one.ipynb")["cells"]) == 2
    command("rm", "told")


@box
def test_replay(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n2\n")
    command("cp", "data.csv", "first:/workspace/data.csv")
    command("exec", "-s", "first", "wc -l < data.csv; date; mktemp; exit 3")
    command("run", "-s", "first", "-c", "import uuid, time; print(uuid.uuid4(), time.ctime()); {}")
    status, out, err = command("replay", "first", "--file", "data.csv:/workspace/data.csv")
    assert (status, out) == (0, b"2 cells run, 0 with other outputs than before\n"), err
    status, out, err = command("replay", "first")
    assert status == 1
    assert "not done again: write of /workspace/data.csv" in err
    assert b"cell 2, stderr" in out
    command("run", "-s", "first", "-c", "import random; random.random()")
    command("export", "first.ipynb", "-s", "first")
    status, out, _ = command("replay", "first.ipynb", "--file", "data.csv:data.csv")
    assert (status, out.splitlines()[0]) == (
        1,
        b"cell 4, text/plain: import random; random.random()",
    )
    listed = command("ls")[1].decode()
    assert "sandbox-" not in listed  # the fresh ones are gone
    command("rm", "first")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-p", "a", "1", "x.ipynb"], ["-p", "a=1", "x.ipynb"]),
        (["x", "-p", "a=1", "-p", "b", "c=d"], ["x", "-p", "a=1", "-p", "b=c=d"]),
        (["--parameter", "a", "-1"], ["--parameter", "a=-1"]),
        (["-p", "a"], ["-p", "a"]),
        (["--", "-p", "a", "b"], ["--", "-p", "a", "b"]),
    ],
)
def test_pairs(args: list[str], words: list[str]) -> None:
    assert _paired(args) == words


def test_values_of_parameters() -> None:
    pairs = ["a=1", "b=1.5", "c=true", "d=True", "e=None", 'f=[1, "x"]', "g=it's", "h=", "i=a=b"]
    assert parameters(pairs) == {
        **{"a": 1, "b": 1.5, "c": True, "d": True, "e": None, "f": [1, "x"]},
        **{"g": "it's", "h": "", "i": "a=b"},
    }
    with pytest.raises(InvalidRequest):
        parameters(["alone"])
