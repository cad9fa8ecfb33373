"""The OpenAPI document against a real service: whatever comes, it answers as the document says.

Only behind walls: the requests that are made up delete and run whatever they happen to name.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_service import serve

from interpreter import Client, isolation
from interpreter.errors import NotReady
from interpreter.settings import Settings

HERE = Path(__file__).parent
SERVER = HERE.parent / "api" / "servers" / "plain.py"
pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with one of everything that a request may name."""
    try:
        asyncio.run(isolation.probe(Settings(isolation="bwrap")))
    except NotReady as error:
        pytest.skip(f"no boxes here: {error}")
    with serve(tmp_path_factory.mktemp("home"), "--isolation", "bwrap") as url:
        with Client(url) as client:
            sandbox = client.get_sandbox("fuzz")
            sandbox.write_file("/workspace/server.py", SERVER.read_bytes())
            sandbox.start_process("exec python3 server.py 8000", id="server").wait_for_port(8000)
            sandbox.start_process("cat", id="waiting")
            sandbox.exec("echo done", id="done")
            sandbox.run_code("1")
        yield url


def schemathesis(
    folder: Path, document: str, *words: str, named: bool = True
) -> subprocess.CompletedProcess[str]:
    """`named`: requests go to what the fixture has made, and not to ids that are made up."""
    parts = ["schemathesis.toml", "schemathesis_named.toml"][: 1 + named]
    config = folder / "schemathesis.toml"
    config.write_text("".join((HERE / part).read_text() for part in parts))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    return subprocess.run(
        [*command, "run", document, "--no-color", *words],
        cwd=folder,
        env=os.environ | hooks,
        capture_output=True,
        text=True,
    )


def test_answers_are_as_the_document_says(url: str, tmp_path: Path) -> None:
    words = ["--generation-deterministic", "--phases", "fuzzing", "--max-examples", "4"]
    ended = schemathesis(tmp_path, f"{url}/openapi.json", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.stress
@pytest.mark.parametrize("named", [True, False])
def test_many_answers_are_as_the_document_says(url: str, tmp_path: Path, named: bool) -> None:
    seed = os.environ.get("CELLSHELL_SEED") or str(secrets.randbelow(10**6))
    print("seed:", seed)  # noqa: T201
    # Stateful tests name what they have made themselves.
    phases = "examples,coverage,fuzzing" if named else "examples,coverage,fuzzing,stateful"
    words = ["--seed", seed, "--max-examples", "100", "--phases", phases]
    ended = schemathesis(tmp_path, f"{url}/openapi.json", *words, named=named)
    print(ended.stdout)  # noqa: T201
    assert ended.returncode == 0, ended.stderr
    assert httpx.get(f"{url}/health").json()["ok"]


@pytest.mark.parametrize("untrue", ["status", "event"])
def test_a_document_that_is_untrue_is_found_out(url: str, tmp_path: Path, untrue: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    answers = document["paths"]["/v1/sandboxes/{sandbox}/executions/{execution}/events"]["get"]
    answers = answers["responses"]
    match untrue:
        case "status":
            del answers["422"]
        case "event":
            answers["200"]["content"]["text/event-stream"]["itemSchema"]["required"] = ["more"]
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    words = ["--url", url, "--include-operation-id", "follow_execution", "--phases", "fuzzing"]
    ended = schemathesis(tmp_path, str(path), *words, "--seed", "1", "--max-examples", "20")
    assert ended.returncode == 1, ended.stdout + ended.stderr
