"""Programs that find the way out by themselves: nothing is set up for them in the sandbox.

What they ask for comes from an upstream proxy of the operator's, who serves files of his own under
the name `mirror.example`, which resolves nowhere else.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from asking import python_of, shell_of
from test_egress import Handler, origin

from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox
from interpreter.sandboxes import Sandbox
from interpreter.settings import Settings

MIRROR = "http://mirror.example"


def serving(folder: Path) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        wanted = urlsplit(target.decode()).path.lstrip("/")
        file = folder / wanted
        file = file / "index.html" if file.is_dir() else file
        body, status = (file.read_bytes(), b"200") if file.is_file() else (b"", b"404")
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n" % (status, len(body))
        kind = b"Content-Type: text/html\r\n" if file.suffix == ".html" else b""
        writer.write(head + kind + b"\r\n" + (b"" if method == b"HEAD" else body))
        await writer.drain()

    return handle


def fill(folder: Path) -> None:
    (folder / "hello").write_text("hello\n")
    wheel = folder / "simple" / "hallo" / "hallo-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hallo.py", "WORD = 'hallo'\n")
        about = "hallo-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: hallo\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    fill_npm(folder)
    fill_git(folder)


def fill_npm(folder: Path) -> None:
    package = {"name": "bonjour", "version": "1.0.0", "main": "index.js"}
    with tarfile.open(folder / "bonjour.tgz", "w:gz") as archive:
        for name, text in (
            ("package.json", json.dumps(package)),
            ("index.js", "module.exports = 'bonjour'"),
        ):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    version = package | {"dist": {"tarball": f"{MIRROR}/bonjour.tgz"}}
    about = {"name": "bonjour", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (folder / "bonjour").write_text(json.dumps(about))


def fill_git(folder: Path) -> None:
    """As plain files, which git reads over http when no program answers for the repository."""
    here = ["-c", "user.name=u", "-c", "user.email=u@example.org", "-C", str(folder / "tree")]
    (folder / "tree").mkdir()
    (folder / "tree" / "salut").write_text("salut\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run(["git", *here, *words], check=True, timeout=20)
    bare = folder / "repository.git"
    subprocess.run(["git", "clone", "-q", "--bare", folder / "tree", bare], check=True, timeout=20)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True, timeout=20)


@pytest_asyncio.fixture(scope="module")
async def mirror(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    folder = tmp_path_factory.mktemp("mirror")
    fill(folder)
    async with origin(serving(folder)) as port:
        yield port


@pytest_asyncio.fixture(scope="module")
async def allowing(tmp_path_factory: pytest.TempPathFactory, mirror: int) -> AsyncIterator[Sandbox]:
    settings = Settings.model_validate(
        {
            "home": tmp_path_factory.mktemp("programs"),
            "egress_upstream": f"http://127.0.0.1:{mirror}",
            "egress_upstream_resolves": True,
        }
    )
    request = CreateSandbox.model_validate({"network": {"allow": ["Mirror.example."]}})
    async with Interpreter(settings) as interpreter:
        sandbox = await interpreter.create_sandbox(request)
        yield sandbox
        await interpreter.delete_sandbox(sandbox.id)


PROGRAMS = {
    "curl": (f"curl -sS {MIRROR}/hello", "hello"),
    "git": (f"git clone -q {MIRROR}/repository.git r && cat r/salut", "salut"),
    "pip": (
        f"pip install -q --index-url {MIRROR}/simple --trusted-host mirror.example hallo "
        "&& python -c 'import hallo; print(hallo.WORD)'",
        "hallo",
    ),
    "npm": (
        f"npm install --silent --no-audit --registry {MIRROR}/ bonjour >/dev/null "
        "&& node -p 'require(\"bonjour\")'",
        "bonjour",
    ),
}


@pytest.mark.box
@pytest.mark.parametrize("program", PROGRAMS)
async def test_it_is_found_by(allowing: Sandbox, program: str) -> None:
    if program != "pip" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed on this machine")
    command, expected = PROGRAMS[program]
    result = await shell_of(allowing.session("default"))(command)
    assert (result.exit_code, result.stdout.strip()) == (0, expected), result
    assert result.notices == []


@pytest.mark.box
async def test_it_is_found_by_python(allowing: Sandbox) -> None:
    cell = f"import urllib.request as u; print(u.urlopen('{MIRROR}/hello').read())"
    assert (await python_of(allowing.session("default"))(cell)).stdout == "b'hello\\n'\n"
