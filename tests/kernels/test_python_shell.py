"""How a cell is looked at before it runs, and where its errors are said to be."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from interpreter.rendering import plain
from kernels.kernel import Kernel
from tests.kernels.runs import run

CALLABLE = """
from IPython.core.autocall import IPyAutocall
class Call(IPyAutocall):
    def __call__(self):
        print("called")
x = Call()
"""
COUNT = """
seen = []
def count(lines):
    seen.append("".join(lines))
    return lines
get_ipython().input_transformers_post[:] = [count]
"""


@pytest.fixture(autouse=True)
async def untouched(kernel: Kernel) -> AsyncIterator[None]:
    yield
    await run(kernel, "get_ipython().input_transformers_post.clear()\n%reset -f")


@pytest.mark.parametrize("cell", ["1", "x = 1\nx", "!true", "await __import__('asyncio').sleep(0)"])
async def test_a_cell_is_transformed_once(kernel: Kernel, cell: str) -> None:
    await run(kernel, COUNT)
    for _ in range(2):
        await run(kernel, cell)
    assert (await run(kernel, "len(seen)")).text == "3"


async def test_the_same_cell_may_be_another_the_next_time(kernel: Kernel) -> None:
    """A single character is one object in Python, however often it is sent."""
    assert (await run(kernel, "x")).ename == "NameError"
    await run(kernel, CALLABLE)
    assert (await run(kernel, "x")).stdout == "------> x()\ncalled\n"
    await run(kernel, "del x\nx = 3")
    assert (await run(kernel, "x")).text == "3"


async def test_whether_cells_may_await_is_asked_each_time(kernel: Kernel) -> None:
    cell = "import asyncio; await asyncio.sleep(0, 5)"
    assert (await run(kernel, cell)).text == "5"
    await run(kernel, "%autoawait off")
    assert (await run(kernel, cell)).ename == "SyntaxError"
    await run(kernel, "%autoawait on")
    assert (await run(kernel, cell)).text == "5"


async def test_a_transformer_that_fails(kernel: Kernel) -> None:
    await run(
        kernel,
        "def fail(lines):\n    if lines == ['1\\n']: raise SyntaxError('mine')\n    return lines",
    )
    await run(kernel, "get_ipython().input_transformers_post.append(fail)")
    assert (await run(kernel, "1")).ename == "SyntaxError"
    assert (await run(kernel, "1")).ename == "SyntaxError"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('x') from e", [2, 4]),
        ("def f():\n    try:\n        1 / 0\n    finally:\n        str(1)\n\nf()", [7, 3]),
        ("x = 1\n" * 20_000 + "1 / 0", [20_001]),
    ],
)
async def test_tracebacks_name_the_lines_that_raised(
    kernel: Kernel, code: str, lines: list[int]
) -> None:
    error = (await run(kernel, code)).outcome.error
    assert error is not None
    text = plain("\n".join(error.traceback))
    assert [
        int(number) for number in re.findall(r"^Cell In\[\d+\], line (\d+)", text, re.M)
    ] == lines
    assert [int(number) for number in re.findall(r"^-*> ?(\d+) ", text, re.M)] == lines
