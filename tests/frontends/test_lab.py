"""JupyterLab in a headless Chromium, with our service as its gateway, and as `cellshell lab`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nbformat
import pytest
import pytest_asyncio

from interpreter import AsyncSandbox
from tests.frontends.driving import INSTALLED, PROGRAMS, TOKEN, Step, browse, lab

pytestmark = [pytest.mark.frontends, pytest.mark.box]
ATTACHED = "Attach: demo/default/python"
SHELL = "Attach: demo/default/$ (bash)"


@pytest_asyncio.fixture
async def gateway(service: str, tmp_path: Path) -> AsyncIterator[str]:
    """JupyterLab on `tmp_path`, whose kernels are the service's."""
    words = (f"--gateway-url={service}", f"--GatewayClient.auth_token={TOKEN}")
    async with lab(PROGRAMS / "jupyter-lab", f"--ServerApp.root_dir={tmp_path}", *words) as address:
        yield address


async def in_notebook(
    address: str, root: Path, kernel: str, cells: list[str], steps: list[Step]
) -> str:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(notebook, root / "notebook.ipynb")
    return await browse(f"{address}/lab/tree/notebook.ipynb?reset", root / "page.png", steps)


async def kernelspec(http: httpx.AsyncClient, title: str) -> str:
    specs = (await http.get("/api/kernelspecs")).json()["kernelspecs"]
    [name] = [name for name, each in specs.items() if each["spec"]["display_name"] == title]
    return str(name)


async def test_a_kernel_of_its_own(gateway: str, http: httpx.AsyncClient, tmp_path: Path) -> None:
    cells = [
        "print('hello from lab')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.show()",
        "import time\nfor n in range(3): print('step', n, flush=True); time.sleep(0.2)",
        "1 / 0",
        "import os; os.environ['LAB'] = '1'; os.getcwd()",
    ]
    steps: list[Step] = []
    for number, seen in enumerate(["hello from lab", None, "step 2", "ZeroDiv", "/workspace"]):
        steps += [["run", number], ["see", seen] if seen else ["wait", ".jp-RenderedImage img"]]
    said = await in_notebook(gateway, tmp_path, "python3", cells, steps)
    assert "[5]:" in said
    [kernel] = [k for k in (await http.get("/api/kernels")).json() if k["connections"]]
    assert kernel["name"] == "python3"


async def test_attached_to_a_context(
    gateway: str, http: httpx.AsyncClient, demo: AsyncSandbox, tmp_path: Path
) -> None:
    cells = [
        "secret",
        "name = input('who? ')\nprint('hi', name)",
        "import time\nprint('sleeping', flush=True); time.sleep(60)",
        "%%bash\npwd",
        "secret",
    ]
    steps = [
        *(["run", 0], ["see", "made by the API"]),
        *(["run", 1], ["fill", ".jp-Stdin-input", "Ada"], ["see", "hi Ada"]),
        *(["run", 2], ["see", "sleeping"], ["press", "Escape", "i", "i"], ["see", "Interrupt"]),
        *(["run", 3], ["see", "/workspace"], ["press", "Escape", "0", "0"], ["confirm"]),
        *(["run", 4], ["see", "NameError"]),
    ]
    await in_notebook(gateway, tmp_path, await kernelspec(http, ATTACHED), cells, steps)
    context = await demo.get_code_context("python")
    assert cells[1] in [cell["source"] for cell in (await context.notebook())["cells"]]


async def test_a_sessions_shell(
    gateway: str, http: httpx.AsyncClient, demo: AsyncSandbox, tmp_path: Path
) -> None:
    await demo.exec("greet() { echo hello $1 from $PWD; }; cd /tmp")
    cells = ["greet lab; export SEEN=yes", "false", "echo asleep; sleep 60", "greet again"]
    steps = [
        *(["run", 0], ["see", "hello lab from /tmp"]),
        *(["run", 1], ["see", "ExitStatus: 1"]),
        *(["run", 2], ["see", "asleep"], ["press", "Escape", "i", "i"], ["see", "Interrupt"]),
        *(["run", 3], ["see", "hello again from /tmp"]),
    ]
    await in_notebook(gateway, tmp_path, await kernelspec(http, SHELL), cells, steps)
    seen = await demo.run_code("import os; os.environ['SEEN']")
    assert seen.text == "'yes'"


async def test_a_widget(
    gateway: str, http: httpx.AsyncClient, demo: AsyncSandbox, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(INSTALLED / "wheels", "wheels")
    await demo.upload_archive("/workspace", packed.getvalue())
    done = await demo.exec("pip install --no-index --find-links wheels ipywidgets")
    assert done.exit_code == 0, done.stderr
    cells = [
        "import ipywidgets\nnumber = ipywidgets.IntText(value=3)\nnumber",
        "print('it is', number.value)",
        "label = ipywidgets.Label()\nlabel",
        "label.value = 'told by the kernel'",
        "number.observe(lambda c: setattr(label, 'value', f'heard {c.new}'), 'value')",
    ]
    steps = [
        *(["run", 0], ["fill", ".widget-text input", "7"], ["run", 1], ["see", "it is 7"]),
        *(["run", 2], ["run", 3], ["wait", ".widget-label:has-text('told by the kernel')"]),
        *(["run", 4], ["fill", ".widget-text input", "8"]),
        ["wait", ".widget-label:has-text('heard 8')"],
    ]
    await in_notebook(gateway, tmp_path, await kernelspec(http, ATTACHED), cells, steps)


async def test_cellshell_lab(service: str, demo: AsyncSandbox, tmp_path: Path) -> None:
    """The files are those of the sandbox, the notebook is on the live context."""
    await demo.write_file("/workspace/notes.txt", "written by the API\n")
    steps = [
        *(["run", 0, "print(secret)"], ["see", "made by the API"]),
        *(["run", 1, "open('made.txt', 'w').write('x')"], ["press", "Control+s"]),
        *(["wait", ".jp-DirListing-item:has-text('made.txt')"], ["open", "notes.txt"]),
        *(["type", ".jp-FileEditor .cm-content", "and here: "], ["press", "Control+s"]),
        ["wait", ".jp-mod-current[data-type='document-title']:not(.jp-mod-dirty)"],
    ]
    words = (PROGRAMS / "cellshell", "lab", "demo", "--url", service, "--token", TOKEN, "--")
    async with lab(*words) as address:
        start = f"{address}/lab/tree/default.ipynb?reset"
        said = await browse(start, tmp_path / "page.png", steps)
        assert "[3]:" in said
    saved = nbformat.reads((await demo.read_file("/workspace/default.ipynb")).decode(), 4)
    assert [cell.source for cell in saved.cells][:1] == ["print(secret)"]
    assert await demo.read_file("/workspace/notes.txt") == b"and here: written by the API\n"
    assert (await demo.run_code("secret")).text == "'made by the API'"
