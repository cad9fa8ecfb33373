"""The shape of the code: imports point one way, files stay short, guests stand alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
LAYERS = ("kernels", "interpreter", "notebooks", "api")
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
UPWARDS = {"interpreter/client_local.py": "api"}
"""The one way up: `AsyncClient.local()` starts the app, and imports it only then."""
GUESTS = [path for path in FILES if path.parent.name == "guest"]
KERNEL_LIBRARIES = {
    "IPython", "comm", "ipykernel", "jupyter_client", "matplotlib", "matplotlib_inline", "numpy",
    "tornado", "traitlets", "zmq",
}  # fmt: skip
MAX_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Top-level package of each absolute import, and when it happens: load, call or typing."""
    tree = ast.parse(path.read_text())
    when: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            when |= {id(each): "call" for each in ast.walk(node)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            when |= {id(each): "typing" for line in node.body for each in ast.walk(line)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            yield name.split(".")[0], when.get(id(node), "load")


def test_imports_point_one_way() -> None:
    wrong = []
    for path in FILES:
        layer = path.relative_to(ROOT).parts[0]
        above = {*LAYERS[LAYERS.index(layer) + 1 :], "tests", "bench", "conftest"}
        lazy = (UPWARDS.get(name_of(path)), "call")
        found = [each for each in imported(path) if each[0] in above and each != lazy]
        wrong += [f"{name_of(path)} imports {package}" for package, _ in found]
    assert wrong == []


def test_files_stay_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_guests_stand_alone() -> None:
    """A box has neither our packages nor our libraries."""
    wrong = []
    for path in GUESTS:
        allowed = set(sys.stdlib_module_names) | {each.stem for each in path.parent.glob("*.py")}
        if name_of(path).startswith("kernels/"):
            allowed |= KERNEL_LIBRARIES
        found = {package for package, when in imported(path) if when != "typing"} - allowed
        wrong += [f"{name_of(path)} imports {package}" for package in sorted(found)]
    assert wrong == []


def test_the_environment_is_built_by_the_standard_library_alone() -> None:
    build = ROOT / "interpreter" / "python_build.py"
    assert {package for package, _ in imported(build)} <= set(sys.stdlib_module_names)


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 30
    assert GUESTS
    assert all((ROOT / path).is_file() for path in UPWARDS)
