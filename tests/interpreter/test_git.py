"""Clones, by the git in a real box, from a repository and servers in it."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator

import pytest
from boxed_session import boxed_session
from shelf import Shelf

from interpreter import git_url
from interpreter.errors import CellshellError, FileExists, GitFailed, InvalidGitUrl
from interpreter.git import checkout
from interpreter.models import Checkout, GitCheckout

box = pytest.mark.box

ORIGIN = """
set -e
export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=n \
    GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=n@example.org
git init -q -b main /tmp/origin.git
cd /tmp/origin.git
for n in 1 2; do echo $n > file; git add file; git commit -qm $n; done
git tag v1
git checkout -q -b "odd'\\"name"
echo 3 > file
git commit -qam 3
git checkout -q main
git init -q /tmp/empty
"""


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        shelf = Shelf(session)
        assert await shelf.run("bash", "-c", ORIGIN) == 0
        yield shelf
        await shelf.files.close()


@pytest.fixture
async def shelf(whole: Shelf) -> AsyncIterator[Shelf]:
    yield whole
    await whole.clear()


async def clone(shelf: Shelf, url: str = "/tmp/origin.git", **fields: object) -> Checkout:
    environment = shelf.session.environment
    request = GitCheckout.model_validate({"url": url, **fields})
    return await checkout(
        shelf.session.box,
        request,
        env=environment.variables,
        cwd=environment.cwd,
        resolve=shelf.session.resolve,
    )


@box
async def test_a_clone(shelf: Shelf) -> None:
    cloned = await clone(shelf)
    assert (cloned.directory, cloned.branch) == ("/workspace/origin", "main")
    assert len(cloned.commit) == 40 and await shelf.get("origin/file") == b"2\n"


@box
async def test_where_and_what(shelf: Shelf) -> None:
    odd = await clone(shelf, branch="odd'\"name", directory="a b/$(c)", depth=1)
    assert (odd.directory, odd.branch) == ("/workspace/a b/$(c)", "odd'\"name")
    assert await shelf.run("test", "-e", "a b/$(c)/.git/shallow") == 0
    assert (await clone(shelf, branch="v1", directory="tag")).branch is None
    empty = await clone(shelf, url="/tmp/empty")
    assert (empty.commit, empty.branch is None) == ("", False)


@box
async def test_only_into_nothing_or_an_empty_directory(shelf: Shelf) -> None:
    await shelf.put("full/a", b"kept")
    await shelf.put("file")
    await shelf.run("ln", "-s", "nowhere", "link")
    for directory in ("full", "file", "link"):
        with pytest.raises(FileExists):
            await clone(shelf, directory=directory)
    await shelf.files.mkdir("empty")
    await clone(shelf, directory="empty")
    assert await shelf.get("full/a") == b"kept"


@box
async def test_git_says_why_not(shelf: Shelf) -> None:
    await shelf.files.mkdir("empty")
    for fields in ({"url": "/tmp/missing"}, {"branch": "none"}, {"url": "http://127.0.0.1:1/x"}):
        with pytest.raises(GitFailed) as failed:
            await clone(shelf, directory="empty", **fields)
        assert "fatal" in failed.value.message
    assert os.listdir(shelf.host) == ["empty"] and os.listdir(shelf.host / "empty") == []


@box
async def test_the_session_cannot_lead_git_elsewhere(shelf: Shelf) -> None:
    variables = shelf.session.environment.variables
    await shelf.put("kept", b"kept")
    variables |= {"GIT_DIR": "/tmp/g", "GIT_WORK_TREE": "/workspace", "GIT_ALLOW_PROTOCOL": "ext"}
    try:
        assert (await clone(shelf)).branch == "main"
    finally:
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_ALLOW_PROTOCOL"):
            del variables[name]
    variables["PATH"] = "/nowhere"
    try:
        with pytest.raises(GitFailed):
            await clone(shelf, directory="none")
    finally:
        variables["PATH"] = os.defpath
    assert os.listdir(shelf.host / "origin") != []


@box
async def test_a_clone_that_takes_too_long_is_ended(shelf: Shelf) -> None:
    with await shelf.session.box.listen(0) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(GitFailed, match="longer than"):
            await clone(shelf, url, timeout=0.5)
        silent.setblocking(False)
        waiting = asyncio.create_task(clone(shelf, url))
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(silent)
        connection.close()
        connection, _ = await loop.sock_accept(silent)
        with connection:
            assert await loop.sock_recv(connection, 4096) != b""
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while await loop.sock_recv(connection, 4096):
                continue  # what git had sent before it was ended
    assert os.listdir(shelf.host) == []


@box
async def test_credentials_go_to_the_server_alone(shelf: Shelf) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 No p%40ss\r\nContent-Length: 5\r\n\r\np@ss!")
        await writer.drain()
        writer.close()

    with await shelf.session.box.listen(0) as listener:
        port = listener.getsockname()[1]
        async with await asyncio.start_server(refuse, sock=listener):
            with pytest.raises(GitFailed) as failed:
                await clone(shelf, f"http://me:p%40ss@127.0.0.1:{port}/x.git")
    expected = b"Authorization: Basic " + base64.b64encode(b"me:p@ss")
    assert asked and all(expected in request for request in asked)
    assert "403" in failed.value.message
    assert "p@ss" not in failed.value.message and "p%40ss" not in failed.value.message


REFUSED = [
    "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c x", "file:///etc", "ftp://a/b", "fd::3",
    "http://", "https:///path", "https://a:port/x", "https://[::1/x", "ssh://-oProxyCommand=x/y",
    "git+ssh://a/b", "relative/path", "./x", "../x", "~/x", "a b:c", "-a:b", "x@-oa:b", "a::b",
    "host:", "https://a\nb/c", "https://a/\x01", "https://a/b\r\n", " https://a/b", "/a\nb",
    "https://a\\b/c", "http", "://x", "a://b", "user@host:", "EXT::x",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_refused_urls(url: str) -> None:
    with pytest.raises(InvalidGitUrl):
        git_url.parse(url)


@pytest.mark.parametrize(
    ("url", "clean", "name"),
    [
        ("https://example.org/a/b.git", None, "b"),
        ("HTTPS://example.org/a/b.git/", "https://example.org/a/b.git/", "b"),
        ("http://me:secret@example.org:8080/b", "http://example.org:8080/b", "b"),
        ("https://token@[::1]:80/b/.git", "https://[::1]:80/b/.git", "b"),
        ("ssh://git@example.org:22/b", None, "b"),
        ("git://example.org/b.git", None, "b"),
        ("git@example.org:team/b.git", None, "b"),
        ("example.org:b", None, "b"),
        ("[::1]:b", None, "b"),
        ("/srv/b.git", None, "b"),
        ("/srv/b/.git/", None, "b"),
        ("//srv//b", None, "b"),
    ],
)
def test_accepted_urls(url: str, clean: str | None, name: str) -> None:
    parsed = git_url.parse(url)
    assert (parsed.url, parsed.name) == (clean or url, name)
    assert "secret" not in parsed.censor(f"bad: {url}") and "token" not in parsed.censor(url)


@box
@pytest.mark.parametrize(
    "fields",
    [
        {"branch": "--upload-pack=x"},
        {"branch": "a\nb"},
        {"directory": "-x"},
        {"url": "https://example.org"},
        {"url": "/"},
    ],
)
async def test_refused_names(shelf: Shelf, fields: dict[str, object]) -> None:
    with pytest.raises(CellshellError) as refused:
        await clone(shelf, **fields)
    assert refused.value.code in ("invalid_git_url", "git_failed")
    assert os.listdir(shelf.host) == []
