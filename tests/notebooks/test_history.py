"""Histories of contexts as notebooks: made of results, and over the real service."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from interpreter import AsyncClient, AsyncSandbox
from interpreter.errors import CellshellError, ContextNotFound, NotReady
from interpreter.executions import Executions
from interpreter.models import CodeResult, Exec, RunCode
from interpreter.settings import Settings
from notebooks.cells import Run
from notebooks.history import History, Kernel, make_notebook

PYTHON = Kernel("python3", "Python 3", "python")


def result(**fields: Any) -> CodeResult:
    base = {"id": "x", "context": "python", "language": "python", "status": "ok", "duration": 1.5}
    return CodeResult.model_validate({**base, "execution_count": 1, "cwd": "/", **fields})


def stream(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def display(**data: Any) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def single(outcome: CodeResult | CellshellError, source: str = "1") -> Any:
    [cell] = make_notebook([Run("x", source, outcome)], PYTHON).cells
    return cell


def test_cells_in_order_with_their_outputs() -> None:
    source = 'print(\'ä\\n\')\n"""\0'
    runs = [
        Run("first", source, result(execution_count=1, outputs=[stream("ä\n")])),
        Run("second", "", result(execution_count=2)),
    ]
    notebook = make_notebook(runs, Kernel("ir", "R", "r"))
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec == {"name": "ir", "display_name": "R", "language": "r"}
    assert [(cell.id, cell.source, cell.execution_count) for cell in notebook.cells] == [
        ("first", source, 1),
        ("second", "", 2),
    ]
    assert notebook.cells[0].outputs == [stream("ä\n")]
    assert nbformat.reads(nbformat.writes(notebook), as_version=4) == notebook


def test_no_runs_make_an_empty_notebook() -> None:
    assert make_notebook([], PYTHON).cells == []


def test_ids_are_allowed_and_differ() -> None:
    runs = [Run(id, "1", result()) for id in ("a.b", "a-b", "a_b", "a" * 63)]
    ids = [cell.id for cell in make_notebook(runs, PYTHON).cells]
    assert ids == [hashlib.sha256(b"a.b").hexdigest(), "a-b", "a_b", "a" * 63]


@pytest.mark.parametrize(
    ("outcome", "ename", "evalue"),
    [
        (NotReady("no box"), "NotReady", "no box"),
        (
            result(
                status="died",
                error={"ename": "KernelDied", "evalue": "signal SIGSEGV", "traceback": []},
            ),
            "KernelDied",
            "signal SIGSEGV",
        ),
        (result(status="timeout", state="done"), "Timeout", "ended after 1.5 s"),
        (result(status="interrupted", execution_count=None), "Interrupted", "ended after 1.5 s"),
    ],
)
def test_an_end_that_the_kernel_did_not_tell_is_told(
    outcome: CodeResult | CellshellError, ename: str, evalue: str
) -> None:
    [error] = single(outcome).outputs
    assert (error.output_type, error.ename, error.evalue) == ("error", ename, evalue)
    assert error.traceback == [f"{ename}: {evalue}"]


def test_an_error_that_the_kernel_told_is_not_told_twice() -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}
    told = {"ename": "E", "evalue": "v", "traceback": ["t"]}
    assert single(result(status="error", outputs=[error], error=told)).outputs == [error]


def test_what_still_runs_has_no_end() -> None:
    running = result(status="interrupted", state="running", outputs=[stream("so far")])
    assert single(running).outputs == [stream("so far")]


def test_json_for_a_type_that_must_be_text_becomes_text() -> None:
    data = {"application/geo+json": {"a": [1]}, "application/JSON; v=1": {"b": None}}
    shown = single(result(outputs=[display(**data)])).outputs[0].data
    assert shown == {"application/geo+json": {"a": [1]}, "application/JSON; v=1": '{"b": null}'}


def test_deep_nesting_is_cut() -> None:
    deep: Any = "bottom"
    for _ in range(2000):
        deep = [deep]
    output = {**display(**{"application/json": deep}), "metadata": {"deep": deep}}
    kept = single(result(outputs=[output])).outputs[0]
    for found in (kept.data["application/json"], kept.metadata["deep"]):
        depth = 0
        while isinstance(found, list):
            found, depth = found[0], depth + 1
        assert (found, 90 < depth < 110) == ("[nested too deeply]", True)


def test_outputs_and_then_runs_that_do_not_fit_are_left_out() -> None:
    history = History(PYTHON, max_bytes=1000)
    history.add(Run("big", "a" * 100, result(outputs=[stream("x" * 2000)])))
    history.add(Run("fits", "b" * 100, result(outputs=[stream("x" * 600)])))
    history.add(Run("long", "c" * 300, result()))
    history.add(Run("next", "d", result()))
    notebook = history.notebook()
    assert [cell.source[0] for cell in notebook.cells] == ["a", "b", "*"]
    assert "execution big has them" in notebook.cells[0].outputs[0].data["text/plain"]
    assert notebook.cells[1].outputs[0].text == "x" * 600
    assert notebook.cells[2].source.startswith("*2 more runs")


async def test_executions_remember_where_they_come_from(tmp_path: Path) -> None:
    executions = Executions(tmp_path / "executions", Settings(home=tmp_path))
    for number, context in enumerate(["one", "two", "one"]):
        request = RunCode(code=f"# {number}\n'ä'", id=f"run-{number}")
        executions.begin("code", "s", request, context)
    executions.begin("exec", "s", Exec(command="ls"))
    for number, execution in enumerate(executions.unfinished()):
        execution.fail(NotReady("ended"))
        late = 10**9 - number  # as if they had ended in another order
        os.utime(tmp_path / "executions" / execution.id, (late, late))
    restored = Executions(tmp_path / "executions", Settings(home=tmp_path))
    for found in (executions, restored):
        assert [each.id for each in found.of_context("s", "one")] == ["run-0", "run-2"]
        assert found.get("run-1").request["code"] == "# 1\n'ä'"
        assert found.get("run-1").origin.context == "two"
        assert found.of_context("other", "one") == []
        assert found.begin("code", "s", RunCode(code="# 0\n'ä'", id="run-0"), "one").repeated


# Over the service


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient.local() as client:
        yield client


@pytest.fixture(scope="module")
async def sandbox(client: AsyncClient) -> AsyncSandbox:
    return await client.get_sandbox("history")


async def fetch(sandbox: AsyncSandbox, context: str) -> NotebookNode:
    document = await (await sandbox.get_code_context(context)).notebook()
    nbformat.validate(document)
    notebook: NotebookNode = nbformat.from_dict(document)  # type: ignore[no-untyped-call]
    return notebook


async def test_a_context_is_a_notebook(sandbox: AsyncSandbox) -> None:
    await sandbox.create_code_context(id="told")
    await sandbox.run_code("x = 6\nprint('six')", context="told", id="first.run")
    await sandbox.exec("echo not in it")
    await sandbox.run_code("x * 7", context="told")
    await sandbox.run_code("1 / 0", context="told")
    await sandbox.run_code("x = 6\nprint('six')", context="told", id="first.run")
    notebook = await fetch(sandbox, "told")
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.source for cell in notebook.cells] == ["x = 6\nprint('six')", "x * 7", "1 / 0"]
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    printed, value, error = [cell.outputs[0] for cell in notebook.cells]
    assert (printed.text, value.data["text/plain"], error.ename) == (
        "six\n",
        "42",
        "ZeroDivisionError",
    )


async def test_what_runs_is_in_it_as_far_as_it_is(sandbox: AsyncSandbox) -> None:
    await sandbox.create_code_context(id="running")
    detached = await sandbox.run_code_detached(
        "print('begun', flush=True); import time; time.sleep(600)", context="running"
    )
    async for event in sandbox.stream_execution(detached.id):
        if event.name == "output":
            break
    [cell] = (await fetch(sandbox, "running")).cells
    assert [output.text for output in cell.outputs] == ["begun\n"]
    await sandbox.cancel_execution(detached.id)
    [cell] = (await fetch(sandbox, "running")).cells
    assert [output.output_type for output in cell.outputs] == ["stream", "error"]


async def test_a_kernel_that_died_is_told(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context(id="dying")
    await context.run_code("import os; os.kill(os.getpid(), 9)")
    await context.run_code("'alive'")
    dead, alive = (await fetch(sandbox, "dying")).cells
    assert (dead.outputs[-1].ename, alive.outputs[0].data["text/plain"]) == (
        "KernelDied",
        "'alive'",
    )


async def test_a_restart_keeps_the_history_and_a_new_context_has_none(
    sandbox: AsyncSandbox,
) -> None:
    context = await sandbox.create_code_context(id="again")
    await context.run_code("'before'")
    await context.restart()
    await context.run_code("'after'")
    cells = (await fetch(sandbox, "again")).cells
    assert [cell.execution_count for cell in cells] == [1, 1]
    await context.delete()
    with pytest.raises(ContextNotFound):
        await context.notebook()
    await sandbox.create_code_context(id="again")
    assert (await fetch(sandbox, "again")).cells == []
    other = await sandbox.create_session("other")
    await other.run_code("'elsewhere'")
    assert len((await (await other.get_code_context("python")).notebook())["cells"]) == 1


async def test_another_language_says_so(client: AsyncClient, sandbox: AsyncSandbox) -> None:
    languages = {each.language: each for each in await client.languages()}
    if not languages["typescript"].available:
        pytest.skip(str(languages["typescript"].reason))
    await sandbox.run_code("const n: number = 6 * 7; n", language="ts")
    notebook = await fetch(sandbox, "typescript")
    assert notebook.metadata.language_info.name == "typescript"
    assert notebook.cells[0].outputs[0].data["text/plain"] == "42"


async def test_the_history_outlives_the_service(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, kernel_environment=Settings().python_home)
    for turn in range(2):
        async with AsyncClient.local(settings) as client:
            sandbox = await client.get_sandbox("kept")
            await sandbox.run_code(f"'turn {turn}'")
            cells = (await fetch(sandbox, "python")).cells
            if turn:
                await sandbox.destroy()
    assert [cell.source for cell in cells] == ["'turn 0'", "'turn 1'"]
    assert cells[0].outputs[0].data["text/plain"] == "'turn 0'"


def test_what_a_cell_tells_of_its_run() -> None:
    changed = result(environment_changes={"set": ["A"], "cwd": "/tmp"})
    [cell] = make_notebook([Run("x", "1", changed, ended_at=1000.0)], PYTHON).cells
    assert cell.metadata.execution == {
        "iopub.execute_input": "1970-01-01T00:16:38.500000+00:00",
        "shell.execute_reply": "1970-01-01T00:16:40+00:00",
    }
    changes = {"set": ["A"], "cwd": "/tmp"}
    told = {"execution": "x", "language": "python", "context": "python"}
    told["environment_changes"] = changes
    assert cell.metadata.cellshell == told


def test_a_cell_of_another_language() -> None:
    [cell] = make_notebook([Run("x", "1", result(language="r"))], PYTHON).cells
    assert cell.metadata.vscode == {"languageId": "r"}
    assert cell.metadata.tags == ["skip-execution"]


async def test_a_session_as_a_notebook(client: AsyncClient) -> None:
    """Commands and cells in their order; it can be run in Jupyter."""
    sandbox = await client.create_sandbox()
    await sandbox.exec("export WORD=from-bash; echo out; echo err >&2; three() { return 3; }")
    await sandbox.run_code("import os; os.environ['WORD']")
    await sandbox.exec("three")
    await sandbox.exec("sleep 60", timeout=0.2)
    await sandbox.exec("printf '\\377'", encoding="base64")
    await sandbox.run_code("1 / 0")
    notebook = nbformat.from_dict(await sandbox.notebook())
    other = await sandbox.create_session()
    assert (await other.notebook())["cells"] == []
    await sandbox.destroy()
    nbformat.validate(notebook)
    cells = notebook.cells
    assert [cell.source.split("\n")[0] for cell in cells] == [
        *("%%bash", "import os; os.environ['WORD']"),
        *("%%bash", "%%bash", "%%bash", "1 / 0"),
    ]
    assert [(o.name, o.text) for o in cells[0].outputs] == [
        ("stdout", "out\n"),
        ("stderr", "err\n"),
    ]
    assert cells[0].metadata.cellshell["environment_changes"] == {"set": ["WORD"]}
    assert cells[1].outputs[0].data["text/plain"] == "'from-bash'"
    assert cells[2].metadata.cellshell.exit_code == 3
    assert [output.ename for output in cells[3].outputs] == ["Timeout"]
    assert "no text" in cells[4].outputs[0].text
    assert cells[5].outputs[0].ename == "ZeroDivisionError"
    assert all("execution" in cell.metadata for cell in cells)
