"""Jupyter's own frontends at our service: `make test-frontends` installs them and runs these."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
import pytest_asyncio
from pydantic import SecretStr

from api.serving import serving
from interpreter.settings import Settings

pytestmark = [pytest.mark.frontends, pytest.mark.box]
HERE = Path(__file__).parent
INSTALLED = HERE.parent.parent / ".frontends"
PROGRAMS = INSTALLED / "venv" / "bin"
TOKEN = "sesame"
KERNEL_CLIENT = """
import sys
from jupyter_kernel_client import JupyterKernelClient
with JupyterKernelClient(server_url=sys.argv[1], token="sesame") as kernel:
    print(kernel.execute("print('hi')\\n6 * 7"))
    print(kernel.execute("1 / 0")["status"])
"""


@pytest_asyncio.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """With a token, and a context that an API user has made."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), token=SecretStr(TOKEN))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(settings, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest_asyncio.fixture
async def http(service: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        base_url=service, headers=headers, timeout=30, trust_env=False
    ) as http:
        await http.put("/v1/sandboxes/demo")
        code = {"code": "secret = 'made by the API'"}
        await http.post("/v1/sandboxes/demo/sessions/default/code", json=code)
        yield http
        for sandbox in (await http.get("/v1/sandboxes")).json():
            await http.delete(f"/v1/sandboxes/{sandbox['id']}")


@pytest_asyncio.fixture
async def lab(service: str, tmp_path: Path) -> AsyncIterator[str]:
    """JupyterLab with this service as its gateway, on `tmp_path`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / "jupyter-lab",
        *("--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--port={port}"),
        *("--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"),
        *(f"--gateway-url={service}", f"--GatewayClient.auth_token={TOKEN}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    async for line in process.stderr:
        if b"Use Control-C" in line:
            break
    drain = asyncio.create_task(process.stderr.read())
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()
    await drain


async def program(*words: object, input: str = "") -> str:
    """What it says on stdout."""
    process = await asyncio.create_subprocess_exec(*map(str, words), stdin=-1, stdout=-1, stderr=-1)
    out, err = await asyncio.wait_for(process.communicate(input.encode()), 200)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_jupyterlab_services(service: str, http: httpx.AsyncClient) -> None:
    """The library that VS Code's extension is made with, and its calls."""
    said = await program("node", HERE / "services.mjs", INSTALLED, service, "demo/default/python")
    steps = dict(json.loads(line) for line in said.splitlines())
    assert steps == {
        "running": ["demo/default/python"],
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
    assert [model["path"] for model in listed] == ["demo/default/python"]


async def test_jupyter_kernel_client(service: str, http: httpx.AsyncClient) -> None:
    said = await program(PROGRAMS / "python", "-c", KERNEL_CLIENT, service)
    assert "hi" in said and "'42'" in said
    assert said.splitlines()[-1] == "error"


async def test_jupyter_konsole(service: str, http: httpx.AsyncClient) -> None:
    words = (PROGRAMS / "jupyter-konsole", "--url", service, "--token", TOKEN)
    said = await program(*words, input="print(6 * 7)\nexit\n")
    assert "\n42" in said


async def test_lab_with_a_kernel_of_its_own(
    lab: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    cells = [
        "print('hello from lab')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.show()",
        "import time\nfor n in range(3): print('step', n, flush=True); time.sleep(0.2)",
        "1 / 0",
        "import os; os.environ['LAB'] = '1'; os.getcwd()",
    ]
    steps: list[list[Any]] = []
    for number, seen in enumerate(["hello from lab", None, "step 2", "ZeroDiv", "/workspace"]):
        steps += [["run", number], ["see", seen] if seen else ["picture"]]
    said = await driven(lab, tmp_path, "python3", cells, steps)
    assert "[5]:" in said
    [kernel] = [k for k in (await http.get("/api/kernels")).json() if k["connections"]]
    assert kernel["name"] == "python3"


async def test_lab_attached_to_a_context(lab: str, http: httpx.AsyncClient, tmp_path: Path) -> None:
    specs = (await http.get("/api/kernelspecs")).json()["kernelspecs"]
    [name] = [n for n, s in specs.items() if s["spec"]["display_name"].startswith("Attach")]
    cells = [
        "secret",
        "name = input('who? ')\nprint('hi', name)",
        "import time\nprint('sleeping', flush=True); time.sleep(60)",
        "%%bash\npwd",
        "secret",
    ]
    steps = [
        *(["run", 0], ["see", "made by the API"]),
        *(["run", 1], ["type", "Ada"], ["see", "hi Ada"]),
        *(["run", 2], ["see", "sleeping"], ["press", "Escape", "i", "i"], ["see", "Interrupt"]),
        *(["run", 3], ["see", "/workspace"], ["press", "Escape", "0", "0"], ["confirm"]),
        *(["run", 4], ["see", "NameError"]),
    ]
    await driven(lab, tmp_path, name, cells, steps)
    notebook = (
        await http.get("/v1/sandboxes/demo/sessions/default/contexts/python/notebook")
    ).json()
    assert cells[1] in [cell["source"] for cell in notebook["cells"]]


async def driven(
    lab: str, root: Path, kernel: str, cells: list[str], steps: list[list[Any]]
) -> str:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(notebook, root / "notebook.ipynb")
    words = (f"{lab}/lab/tree/notebook.ipynb?reset", root / "page.png", json.dumps(steps))
    return await program(PROGRAMS / "python", HERE / "browser.py", *words)
