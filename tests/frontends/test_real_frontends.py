"""Jupyter's programs without a browser: `make test-frontends` installs them and runs these."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from interpreter import AsyncSandbox
from tests.frontends.driving import HERE, INSTALLED, PROGRAMS, TOKEN, program

pytestmark = [pytest.mark.frontends, pytest.mark.box]
LISTED = ["demo/default/$", "demo/default/python"]
KERNEL_CLIENT = """
import sys
from jupyter_kernel_client import JupyterKernelClient
with JupyterKernelClient(server_url=sys.argv[1], token="sesame") as kernel:
    print(kernel.execute("print('hi')\\n6 * 7"))
    print(kernel.execute("1 / 0")["status"])
"""


async def test_jupyterlab_services(service: str, http: httpx.AsyncClient) -> None:
    """The library that VS Code's extension is made with, and its calls."""
    said = await program("node", HERE / "services.mjs", INSTALLED, service, "demo/default/python")
    steps = dict(json.loads(line) for line in said.splitlines())
    assert steps == {
        "running": LISTED,
        "cell": ["ok", "hi\n42"],
        "input": ["ok", "'typed'"],
        "error": ["ZeroDivisionError", ""],
        "complete": True,
        "comm": [3, 2, 1],
        "interrupt": ["KeyboardInterrupt", "on\n"],
        "path": "x/b.ipynb",
        "restart": ["ok", "42"],
        "attach": ["ok", "'made by the API'"],
    }
    listed = (await http.get("/api/sessions")).json()
    assert sorted(model["path"] for model in listed) == [*LISTED, "jupyter/default/$"]


async def test_jupyter_kernel_client(service: str, http: httpx.AsyncClient) -> None:
    said = await program(PROGRAMS / "python", "-c", KERNEL_CLIENT, service)
    assert "hi" in said and "'42'" in said
    assert said.splitlines()[-1] == "error"


async def test_jupyter_konsole(service: str, http: httpx.AsyncClient) -> None:
    words = (PROGRAMS / "jupyter-konsole", "--url", service, "--token", TOKEN)
    said = await program(*words, input="print(6 * 7)\nexit\n")
    assert "\n42" in said


async def test_jupyter_console_on_a_connection_file(demo: AsyncSandbox, tmp_path: Path) -> None:
    context = await demo.get_code_context("python")
    file = tmp_path / "kernel.json"
    file.write_text(json.dumps(await context.connection()))
    words = (PROGRAMS / "jupyter-console", "--existing", file, "--simple-prompt")
    said = await program(*words, input="print(secret.upper())\nexit\n")
    assert "MADE BY THE API" in said
    assert "print(secret.upper())" in [
        cell["source"] for cell in (await context.notebook())["cells"]
    ]


@pytest.mark.parametrize(
    ("words", "typed", "shown"),
    [
        (("demo/default",), "print(secret.upper())", "MADE BY THE API"),
        (("demo/default/python",), "print(secret.upper())", "MADE BY THE API"),
        (("demo/default", "--bash"), "echo $((6 * 7)) in $PWD", "42 in /workspace"),
    ],
)
async def test_cellshell_console(
    service: str,
    demo: AsyncSandbox,
    tmp_path: Path,
    words: tuple[str, ...],
    typed: str,
    shown: str,
) -> None:
    """In a directory that has modules of the same names."""
    for name in ("api", "interpreter", "token"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    command = (PROGRAMS / "cellshell", "console", *words, "--url", service, "--token", TOKEN)
    assert shown in await program(*command, input=f"{typed}\nexit\n", cwd=tmp_path)
    assert (await demo.run_code("secret")).text == "'made by the API'"
