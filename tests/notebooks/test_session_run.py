"""Notebooks run in sessions: tags, parameters, errors, time-outs, languages; and what is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import nbformat
import pytest
import pytest_asyncio

from interpreter import AsyncClient, AsyncSandbox, AsyncSession
from interpreter.errors import CellshellError, FileNotFound, InvalidRequest, TooLarge
from interpreter.notebook_models import NotebookResult
from notebooks.documents import parse, parse_text
from notebooks.parameters import INJECTED, inject


@pytest_asyncio.fixture(scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient.local() as client:
        yield client


@pytest_asyncio.fixture(scope="module")
async def sandbox(client: AsyncClient) -> AsyncIterator[AsyncSandbox]:
    sandbox = await client.create_sandbox()
    yield sandbox
    await sandbox.destroy()


@pytest_asyncio.fixture
async def session(sandbox: AsyncSandbox) -> AsyncIterator[AsyncSession]:
    session = await sandbox.create_session()
    yield session
    await session.delete()


def code(source: str, *tags: str, **metadata: Any) -> dict[str, Any]:
    tagged = {"tags": list(tags)} if tags else {}
    cell = nbformat.v4.new_code_cell(source, metadata={**tagged, **metadata})
    return dict(cell)


def notebook(*cells: dict[str, Any] | str, language: str = "python") -> dict[str, Any]:
    made = nbformat.v4.new_notebook(
        cells=[code(cell) if isinstance(cell, str) else cell for cell in cells],
        metadata={"language_info": {"name": language}},
    )
    return dict(made)


def texts(result: NotebookResult) -> list[str | None]:
    """Of each cell: what it printed, or the text of its last output."""
    found: list[str | None] = []
    for cell in result.notebook["cells"]:
        outputs = cell.get("outputs")
        last = outputs[-1] if outputs else {}
        found.append(
            last.get("text") or last.get("data", {}).get("text/plain") or last.get("ename")
        )
    return found


@pytest.mark.box
async def test_it_has_its_outputs(session: AsyncSession) -> None:
    given = notebook("x = 6", nbformat.v4.new_markdown_cell("text"), "print(x)", "x * 7", " ")
    result = await session.run_notebook(given)
    assert (result.status, result.success, result.failed, result.executed) == ("ok", True, [], 3)
    assert texts(result) == [None, None, "6\n", "42", None]
    ran = nbformat.from_dict(result.notebook)
    nbformat.validate(ran)
    assert [cell.get("execution_count") for cell in ran.cells] == [1, None, 2, 3, None]
    assert (
        ran.cells[0].metadata.execution["iopub.execute_input"]
        < (ran.cells[3].metadata.execution["shell.execute_reply"])
    )
    assert ran.metadata.cellshell.status == "ok"
    assert (await session.run_code("x")).text == "6"  # it is the session's own kernel
    assert "outputs" not in str(given["cells"][1])


@pytest.mark.box
async def test_progress(session: AsyncSession) -> None:
    events = [event async for event in session.run_notebook_stream(notebook("print('a')", "1 / 0"))]
    assert [event.name for event in events] == [
        *("started", "cell_started", "output", "cell_done"),
        *("cell_started", "output", "cell_done", "done"),
    ]
    assert events[0].data == {"cells": 2, "language": "python"}
    assert events[2].data["output"]["text"] == "a\n"
    done = events[3].data
    assert (done["index"], done["status"], done["execution_count"]) == (0, "ok", 1)
    assert events[-1].data["failed"] == [1]
    assert [event.number for event in events] == list(range(1, 9))


@pytest.mark.box
async def test_errors(session: AsyncSession) -> None:
    cells = (code("1 / 0", "raises-exception"), "print('on')", "raise ValueError", "print('never')")
    stopped = await session.run_notebook(notebook(*cells))
    assert (stopped.status, stopped.failed, stopped.executed) == ("error", [2], 3)
    assert texts(stopped) == ["ZeroDivisionError", "on\n", "ValueError", None]
    went_on = await session.run_notebook(notebook(*cells), on_error="continue")
    assert (went_on.status, went_on.failed, went_on.executed) == ("error", [2], 4)
    assert texts(went_on)[3] == "never\n"
    died = await session.run_notebook(notebook("import os; os._exit(3)", "1"))
    assert (died.status, died.executed) == ("died", 1)


@pytest.mark.box
async def test_cells_that_are_skipped(session: AsyncSession) -> None:
    raw = nbformat.v4.new_raw_cell("raw")
    own = code("1", "skip-execution", vscode={"languageId": "python"})
    result = await session.run_notebook(notebook(code("1", "skip-execution"), raw, own, "2"))
    assert result.executed == 1
    assert texts(result) == [None, None, None, "2"]


@pytest.mark.box
async def test_time(session: AsyncSession) -> None:
    slow = "import time; print('on', flush=True); time.sleep(20)"
    cell = await session.run_notebook(notebook(slow, "1"), cell_timeout=0.5)
    assert (cell.status, cell.executed) == ("timeout", 1)
    whole = await session.run_notebook(notebook(slow, slow, "1"), timeout=0.6, on_error="continue")
    assert (whole.status, whole.executed) == ("timeout", 1)
    assert whole.duration < 10


@pytest.mark.box
async def test_time_in_a_queue(session: AsyncSession) -> None:
    slow = "import time; print('on', flush=True); time.sleep(20)"
    async with aclosing(session.run_code_stream(slow)) as events:
        async for event in events:
            if event.name == "output":
                break
        result = await session.run_notebook(notebook("1"), timeout=0.5)
        assert (result.status, result.duration < 3) == ("timeout", True)
        assert [each.info.state for each in await session.list_code_contexts()] == ["busy"]
    await (await session.get_code_context("python")).interrupt()


@pytest.mark.box
async def test_what_was_run_is_answered(session: AsyncSession) -> None:
    """Whatever becomes of a later cell, or of the file that it was to be written to."""
    cells = notebook("1 + 1", "x = '\0'", "2 + 2")
    result = await session.run_notebook(cells, on_error="continue", output_path="/workspace")
    assert (result.status, result.failed, texts(result)[::2]) == ("error", [1], ["2", "4"])
    assert [notice.code for notice in result.notices] == ["is_a_directory"]


@pytest.mark.box
async def test_outputs_of_before_are_not_sent(session: AsyncSession) -> None:
    document = notebook("1 + 1")
    text = {"output_type": "stream", "name": "stdout", "text": "x" * (20 << 20)}
    document["cells"][0]["outputs"] = [text]
    assert texts(await session.run_notebook(document)) == ["2"]
    assert document["cells"][0]["outputs"] == [text]


@pytest.mark.box
async def test_a_notebook_that_names_its_kernelspec_alone(session: AsyncSession) -> None:
    document = notebook("year", code("year", vscode={"languageId": "python"}))
    document["metadata"] = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    await session.create_code_context(id="own")
    result = await session.run_notebook(document, parameters={"year": 3}, context="own")
    assert texts(result)[1:] == ["3", "3"]


@pytest.mark.box
async def test_a_record_says_where_it_ran(session: AsyncSession) -> None:
    """In which directory and context; and that there was more, which a record does not hold."""
    await session.exec("mkdir sub; cat >sub/got", stdin="typed")
    await session.exec("pwd", cwd="sub", env={"A": "b"})
    await (await session.create_code_context(id="own")).run_code("x = 'own'")
    await session.run_code("x = 'default'")
    document = await session.notebook()
    told = [cell["metadata"]["cellshell"] for cell in document["cells"]]
    document["cells"] = [each for each in document["cells"] if each["cell_type"] == "code"]
    assert [told[0]["stdin"], told[1]["cwd"], told[1]["env"]] == [5, "sub", ["A"]]
    assert [each.get("context") for each in told[2:]][-2:] == ["own", "python"]
    await (await session.get_code_context("own")).delete()
    result = await session.run_notebook(document)
    assert result.status == "ok"
    assert str(texts(result)[1]).endswith("/sub\n")
    assert (await (await session.get_code_context("own")).run_code("x")).text == "'own'"
    assert (await session.run_code("x")).text == "'default'"


@pytest.mark.box
@pytest.mark.parametrize("tagged", [True, False])
async def test_parameters(session: AsyncSession, tagged: bool) -> None:
    first = code("year = 1; name = 'default'", "parameters") if tagged else "pass"
    values = {"year": 2026, "name": 'it\'s "x"\n', "deep": {"a": [None, True, 1.5]}}
    given = notebook(first, "year, name, deep" if tagged else "year")
    result = await session.run_notebook(given, parameters=values)
    at = 1 if tagged else 0
    injected = result.notebook["cells"][at]
    assert injected["metadata"]["tags"] == [INJECTED]
    assert texts(result)[-1] == (str(tuple(values.values())) if tagged else "2026")
    assert result.notebook["metadata"]["cellshell"]["parameters"] == values
    again = await session.run_notebook(result.notebook, parameters={**values, "year": 1})
    assert len(again.notebook["cells"]) == 3


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("python", "v = [None, 'a\"', {'b': True}]"),
        ("typescript", 'var v = [null, "a\\"", {"b": true}];'),
        ("r", 'v <- list(NULL, "a\\"", list("b" = TRUE))'),
    ],
)
def test_parameters_in_other_languages(language: str, line: str) -> None:
    made = nbformat.v4.new_notebook()
    inject(made, {"v": [None, 'a"', {"b": True}]}, language)
    assert made.cells[0].source.splitlines()[1] == line
    with pytest.raises(InvalidRequest):
        inject(made, {"v": 1}, "cobol")


@pytest.mark.box
async def test_several_languages(session: AsyncSession) -> None:
    given = notebook(
        "import os; os.environ['WORD'] = 'shared'",
        code("echo $WORD; export WORD=louder", vscode={"languageId": "shellscript"}),
        code("Deno.env.get('WORD')", "skip-execution", vscode={"languageId": "typescript"}),
        code("x", vscode={"languageId": "no-such"}),
    )
    result = await session.run_notebook(given)
    assert texts(result) == [None, "shared\n", '"louder"', "LanguageUnknown"]
    assert result.failed == [3]


@pytest.mark.box
async def test_a_notebook_for_bash(session: AsyncSession) -> None:
    given = notebook("greet() { echo hi $1; }", "greet you", "exit_code() { return 3; }; exit_code")
    given["metadata"] = {"kernelspec": {"name": "bash", "display_name": "Bash", "language": "bash"}}
    result = await session.run_notebook(given)
    assert texts(result)[1] == "hi you\n"
    assert (result.status, result.failed) == ("error", [2])
    assert result.notebook["cells"][2]["metadata"]["cellshell"]["exit_code"] == 3


@pytest.mark.box
async def test_what_a_session_did_can_be_done_again(
    sandbox: AsyncSandbox, session: AsyncSession
) -> None:
    await session.exec("export GREETING=hello; greet() { echo $GREETING $1; }")
    await session.run_code("import os; who = os.environ['GREETING'] + ' kernel'; who")
    await session.exec("greet shell; false")
    await session.run_code("1 / 0")
    await session.run_code("let n: number = 2; n", language="typescript")
    await session.write_file("seen.txt", "x")
    recorded = await session.notebook()
    other = await sandbox.create_session()
    result = await other.run_notebook(recorded)
    await other.delete()
    assert (result.status, result.executed) == ("ok", 5)
    assert texts(result) == [
        None,
        "'hello kernel'",
        "hello shell\n",
        "ZeroDivisionError",
        "2",
        None,
    ]


@pytest.mark.box
async def test_in_a_context_of_choice(session: AsyncSession) -> None:
    context = await session.create_code_context(id="own")
    await session.run_notebook(notebook("mine = 1"), context="own")
    assert (await context.run_code("mine")).text == "1"
    assert (await session.run_code("mine")).status == "error"
    with pytest.raises(CellshellError, match="no context"):
        await session.run_notebook(notebook("1"), context="none")


@pytest.mark.box
async def test_files_of_the_session(session: AsyncSession) -> None:
    await session.write_file("in.ipynb", json.dumps(notebook("print('from a file')")))
    result = await session.run_notebook("in.ipynb", output_path="out.ipynb")
    told = (await session.exec("cat out.ipynb")).stdout
    assert json.loads(told) == result.notebook
    assert texts(result) == ["from a file\n"]
    with pytest.raises(FileNotFound):
        await session.run_notebook("none.ipynb")
    await session.write_file("bad.ipynb", "no JSON")
    with pytest.raises(InvalidRequest, match="no JSON"):
        await session.run_notebook("bad.ipynb")


@pytest.mark.box
async def test_a_caller_that_goes_away_ends_it(session: AsyncSession) -> None:
    given = notebook("import time; print('on', flush=True); time.sleep(30)", "late = 1")
    stream = session.run_notebook_stream(given)
    async for event in stream:
        if event.name == "output":
            break
    await stream.aclose()
    async with asyncio.timeout(8):
        assert (await session.run_code("'late' in globals()")).text == "False"
    [first, _] = (await session.notebook())["cells"]
    assert first["outputs"][-1]["ename"] == "KeyboardInterrupt"


@pytest.mark.box
async def test_two_at_once(session: AsyncSession) -> None:
    """Their cells take turns in the queue of the context; each has its own outputs."""
    given = [notebook(*(f"print({n * 100 + m})" for m in range(10))) for n in range(2)]
    results = await asyncio.gather(*map(session.run_notebook, given))
    for number, result in enumerate(results):
        assert texts(result) == [f"{number * 100 + m}\n" for m in range(10)]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"nbformat": "4"},
        {"nbformat": 4, "cells": 3},
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "no"}]},
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3]},
        {"nbformat": 4, "nbformat_minor": 4, "metadata": None, "cells": []},
        {"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []},
        {"nbformat": 3, "worksheets": 4},
        {"nbformat": -1},
    ],
)
async def test_what_is_no_notebook(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected a notebook"):
        parse(document)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"nbformat": 4'])
def test_what_is_no_file_of_one(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected a notebook"):
        parse_text(text)


def test_notebooks_of_earlier_versions() -> None:
    cell = {"cell_type": "code", "metadata": {}, "source": ["1\n", "2"], "outputs": []}
    old = {"nbformat": 4, "nbformat_minor": 2, "metadata": {}}
    found = parse({**old, "cells": [{**cell, "execution_count": 1}]})
    assert (found.nbformat_minor, found.cells[0].source) == (5, "1\n2")
    assert found.cells[0].id
    oldest = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {},
        "worksheets": [
            {"cells": [{"cell_type": "code", "input": "1", "outputs": [], "language": "python"}]}
        ],
    }
    assert parse(oldest).cells[0].source == "1"


@pytest.mark.box
async def test_bad_requests(session: AsyncSession, client: AsyncClient) -> None:
    for fields in ({}, {"notebook": {}, "path": "x"}, {"notebook": {"nbformat": 4}}):
        call = client._transport._http.post(f"{session._session_path}/notebooks/run", json=fields)
        answer = await call
        assert answer.status_code == 422, answer.text
    with pytest.raises(InvalidRequest):
        await session.run_notebook(notebook("x = '\0'"))
    with pytest.raises(TooLarge):
        await session.run_notebook(notebook(f"x = {'y' * (50 << 20)!r}"))
    with pytest.raises(CellshellError):
        await session.run_notebook(notebook("1"), parameters={"no name": 1})
    assert (await session.run_code("1")).text == "1"
