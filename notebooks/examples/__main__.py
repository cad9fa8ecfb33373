"""Runs the example notebook, shows what it does, and leaves what it makes in a directory."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode

from interpreter.rendering import joined, output_text, plain
from notebooks.examples import FIRST_STEPS
from notebooks.running import failed, read_notebook, run_notebook, write_notebook

ROOT = Path(__file__).parents[2]


class Narrator:
    """Prints cells and their outputs as they come."""

    def __init__(self) -> None:
        self._since = 0.0

    def begins(self, cell: NotebookNode) -> None:
        self._since = time.monotonic()
        if cell.cell_type == "code":
            print("\n".join(f"    {line}".rstrip() for line in cell.source.splitlines()))
        else:
            print(f"\n{cell.source}\n")
        sys.stdout.flush()

    def ended(self, cell: NotebookNode) -> None:
        for output in cell.get("outputs", ()):
            print(_shown(output))
        if cell.cell_type == "code":
            print(f"    # {time.monotonic() - self._since:.1f} s\n", flush=True)


def _shown(output: NotebookNode) -> str:
    """An output as text; a picture by its type and size."""
    data = output.get("data", {})
    for mime, content in data.items():
        if mime.startswith("image/"):
            return f"[{mime}, {len(content) * 3 // 4:,} bytes]"
    if "text/markdown" in data:
        return joined(data["text/markdown"]).rstrip("\n")
    return plain(output_text(output)).rstrip("\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: every cell ran."""
    options = _options(arguments)
    if importlib.util.find_spec("airportsdata") is None:
        print("The data set is not installed: pip install 'cellshell[data]'", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    where = os.environ.get("CELLSHELL_URL") or "a service of its own"
    print(f"{FIRST_STEPS.name}, with {where}")
    try:
        ran = asyncio.run(_run(options.output.absolute()))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    write_notebook(ran, options.output / FIRST_STEPS.name)
    if any(map(failed, ran.cells)):
        print("A cell failed: see above.", file=sys.stderr)
        return 1
    if options.update:
        write_notebook(ran, FIRST_STEPS)
    print("Left behind:", *sorted(f"\n  {path}" for path in options.output.iterdir()))
    return 0


async def _run(directory: Path) -> NotebookNode:
    env = {**os.environ, "PYTHONPATH": _search_path()}
    notebook = read_notebook(FIRST_STEPS)
    return await run_notebook(notebook, cwd=directory, env=env, listener=Narrator())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m notebooks.examples", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIRECTORY")
    parser.add_argument(
        "--update", action="store_true", help="keep the outputs of this run in the notebook itself"
    )
    return parser.parse_args(arguments)


def _search_path() -> str:
    """So that a checkout that is not installed works too."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


if __name__ == "__main__":
    sys.exit(main())
