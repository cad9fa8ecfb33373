"""Notebooks run on this machine, cell by cell, in a kernel of this Python."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import nbformat
import zmq
from jupyter_client.kernelspec import KernelSpec
from nbformat import NotebookNode

from kernels.errors import KernelFailed
from kernels.kernel import ExecuteOutcome, Kernel
from kernels.outputs import OutputCollector
from notebooks.machine import Machine

MAX_BYTES = 16 * 1024 * 1024
"""Of one output."""
FAREWELL = 30.0
"""How long the kernel may take to end what the notebook has left open."""


class Listener(Protocol):
    """Is told of each cell before it runs, and when it has its outputs."""

    def begins(self, cell: NotebookNode) -> None: ...

    def ended(self, cell: NotebookNode) -> None: ...


async def run_notebook(
    notebook: NotebookNode, *, cwd: Path, env: Mapping[str, str], listener: Listener
) -> NotebookNode:
    """The notebook with the outputs of this run, which ends at the first cell that `failed`."""
    ran = deepcopy(notebook)
    _clear(ran)
    async with _kernel(cwd, env) as kernel:
        for cell in ran.cells:
            listener.begins(cell)
            if cell.cell_type == "code" and cell.source.strip():
                await _run_cell(kernel, cell)
            listener.ended(cell)
            if failed(cell):
                break
    nbformat.validate(ran)
    return ran


def failed(cell: NotebookNode) -> bool:
    """Whether a cell has ended with an error."""
    return any(output.output_type == "error" for output in cell.get("outputs", ()))


def read_notebook(path: Path) -> NotebookNode:
    """An `.ipynb` file of any version, as one of version 4."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """As an `.ipynb` file."""
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def _clear(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


async def _run_cell(kernel: Kernel, cell: NotebookNode) -> None:
    collector = OutputCollector(MAX_BYTES)
    outcome = await kernel.execute(cell.source, on_message=collector.apply)
    outputs = [*collector.outputs(), *_ending(outcome)]
    cell.outputs = nbformat.from_dict(outputs)  # type: ignore[no-untyped-call]
    cell.execution_count = outcome.execution_count


def _ending(outcome: ExecuteOutcome) -> list[dict[str, Any]]:
    if outcome.status in ("ok", "error"):
        return []
    evalue = f"the kernel ended: {outcome.death}" if outcome.death else "the cell did not run"
    traceback = [f"KernelDied: {evalue}"]
    return [
        {"output_type": "error", "ename": "KernelDied", "evalue": evalue, "traceback": traceback}
    ]


@asynccontextmanager
async def _kernel(cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Kernel]:
    with tempfile.TemporaryDirectory(prefix="cellshell-kernel-") as sockets, zmq.Context() as zmqs:
        place = Machine(Path(sockets))
        kernel = Kernel(_spec(), place, zmqs)
        try:
            await kernel.start(env=env, cwd=str(cwd))
            yield kernel
        finally:
            await _end(kernel)
            place.close()


async def _end(kernel: Kernel) -> None:
    """Politely: what the notebook has opened, such as a service of its own, ends with Python."""
    try:
        async with asyncio.timeout(FAREWELL):
            if kernel.running:
                await kernel.interrupt()
                await kernel.execute("exit()", silent=True)
                await asyncio.shield(kernel.died)
    except (KernelFailed, TimeoutError):
        kernel.kill()
    await kernel.shutdown(now=True)


def _spec() -> KernelSpec:
    program = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    # So that it ends when this process is killed.
    parent = f"--IPKernelApp.parent_handle={os.getpid()}"
    return KernelSpec(argv=[*program, parent], language="python", interrupt_mode="signal", env={})
