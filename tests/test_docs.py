"""The documents' snippets, run as they stand against a live service.

Blocks marked `bash` and `python` run in order; a `text` block right after one is its output.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live_service import ROOT, environment, serve

from interpreter import errors

DOCUMENTS = (
    "README.md",
    "docs/quickstart.md",
    "docs/client.md",
    "docs/command.md",
    "docs/environment.md",
    "docs/notebooks.md",
    "docs/jupyter.md",
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str
    output: str | None


def snippets(document: str) -> list[Snippet]:
    text = (ROOT / document).read_text()
    return [Snippet(*each) for each in BLOCK.findall(text) if each[0] in ("bash", "python")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, with a `cellshell` on the path."""
    script = tmp_path / ".bin" / "cellshell"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m api.command "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.box
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_snippets(document: str, service: str, directory: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets(document):
        code = snippet.code.replace(ADDRESS, service)
        if "curl " in code and shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        said = run_python(code, names) if snippet.language == "python" else run_bash(code, service)
        if snippet.output:
            assert said == snippet.output, code


def run_python(code: str, names: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "<document>", "exec"), names)
    return said.getvalue()


def run_bash(code: str, service: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env=environment(CELLSHELL_URL=service),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_command_document_names_every_command() -> None:
    from api.command import make_app

    text = (ROOT / "docs/command.md").read_text()
    for command in make_app().registered_commands:
        assert command.callback is not None
        assert f"`{command.callback.__name__}`" in text


def test_the_client_document_names_every_method() -> None:
    from interpreter import client, client_context, client_process, client_session

    kinds: list[type] = [client.AsyncClient, client_context.AsyncContext]
    kinds += [client_process.AsyncProcess, client_session.AsyncSandbox, client_session.AsyncSession]
    text = (ROOT / "docs/client.md").read_text()
    public = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    described = {name for name in public if re.search(rf"\b{name}\b", text)}
    assert public - described <= {"aclose", "language", "pid", "exit_code"}


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", changelog, re.MULTILINE)


def test_the_tree_of_errors_is_drawn_whole() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+", errors.__doc__ or ""))
    assert {error.__name__ for error in errors.BY_CODE.values()} <= drawn
