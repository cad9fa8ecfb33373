"""Cells that end, deafen, deceive or flood their kernel."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.acceptance.conftest import Run


@pytest.mark.parametrize(
    ("cell", "status", "signal"),
    [
        ("import os; os._exit(3)", 3, None),
        ("exit()", 0, None),
        ("import os; os.kill(os.getpid(), 11)", None, "SIGSEGV"),
    ],
)
async def test_death_is_told_with_its_reason(
    code: Run, cell: str, status: int | None, signal: str | None
) -> None:
    result = await code(cell)
    assert (result["status"], result["error"]["ename"]) == ("died", "KernelDied")
    assert (result["exit"]["code"], result["exit"]["signal"]) == (status, signal)
    following = await code("1 + 1")
    assert (following["text"], following["execution_count"]) == ("2", 1)
    assert [notice["code"] for notice in following["notices"]] == ["context_restarted"]


@pytest.mark.parametrize(
    "cell",
    [
        "input()",
        "1/0",
        "'open",
        "import sys; sys.exit(4)",
        "raise Exception('\\ud800')",
        "class E(Exception):\n    def __str__(self): raise E\nraise E()",
    ],
)
async def test_exception_is_always_named(code: Run, cell: str) -> None:
    result = await code(cell)
    assert result["status"] == "error"
    assert result["error"]["ename"]


async def test_cell_that_swallows_interrupts_is_killed(code: Run) -> None:
    cell = (
        "while True:\n    try:\n        import time; time.sleep(9)\n    except BaseException: pass"
    )
    result = await code(cell, timeout=0.2)
    assert result["status"] == "timeout"
    assert [notice["code"] for notice in result["notices"]][-1] == "killed_harder"
    assert (await code("2"))["text"] == "2"


async def test_fifty_megabytes_are_bounded(code: Run) -> None:
    result = await code("print('x' * 50_000_000); print('end')", max_output_bytes=1000)
    assert result["stdout"].startswith("xxx") and result["stdout"].endswith("end\n")
    assert len(result["stdout"]) < 2000 and result["omitted"]["stdout"] > 49_000_000


async def test_values_survive_both_directions(code: Run, exec: Run) -> None:
    value = "q'\"\n$x `y` \\ é"
    await code(f"import os; os.environ['BACK'] = {value!r}; os.chdir('/tmp')")
    assert (await exec("printenv BACK; pwd"))["stdout"] == f"{value}\n/tmp\n"
    await exec('export THERE="$BACK"; cd /workspace; unset BACK')
    seen = "import os; print(os.environ['THERE'], 'BACK' in os.environ, os.getcwd())"
    assert (await code(seen))["stdout"] == f"{value} False /workspace\n"


async def test_restarts_and_runs_at_once(http: httpx.AsyncClient, session: str, code: Run) -> None:
    """No run is told that its kernel died: it ran, or it was interrupted."""
    restart = f"{session}/contexts/python/restart"
    await code("1")
    runs = asyncio.gather(*(code("1") for _ in range(4)))
    answers = await asyncio.gather(*(http.post(restart) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert {result["status"] for result in await runs} <= {"ok", "interrupted"}
    assert (await code("6"))["text"] == "6"
