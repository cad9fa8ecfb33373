"""A session's files as the contents of a Jupyter Server, by its own contents manager."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import pytest_asyncio
from tornado.web import HTTPError

from interpreter import AsyncSandbox
from notebooks.contents import SANDBOX, SESSION, TOKEN, URL, SessionContents

BYTES = bytes(range(256))


@pytest_asyncio.fixture
async def contents(
    service: str, sandbox: AsyncSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SessionContents]:
    monkeypatch.setenv(URL, service)
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.setenv(SANDBOX, sandbox.id)
    monkeypatch.setenv(SESSION, "default")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    contents = SessionContents()
    yield contents
    await contents.close()


async def status(call: Any) -> tuple[int, str | None]:
    with pytest.raises(HTTPError) as told:
        await call
    return told.value.status_code, told.value.log_message


def notebook(*sources: str) -> dict[str, Any]:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return {"type": "notebook", "content": nbformat.v4.new_notebook(cells=cells)}


async def test_text_and_bytes(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    text = 'naïve "quotes"\n\0 🐚'
    await contents.save({"type": "file", "format": "text", "content": text}, "a b.txt")
    packed = base64.encodebytes(BYTES).decode()
    await contents.save({"type": "file", "format": "base64", "content": packed}, "all.bin")
    assert await sandbox.read_file("/workspace/a b.txt") == text.encode()
    assert await sandbox.read_file("/workspace/all.bin") == BYTES

    found = await contents.get("a b.txt", require_hash=True)
    assert (found["content"], found["format"], found["mimetype"]) == (text, "text", "text/plain")
    assert found["hash"] == hashlib.sha256(text.encode()).hexdigest()
    found = await contents.get("all.bin")
    assert (base64.b64decode(found["content"]), found["format"]) == (BYTES, "base64")
    assert (await status(contents.get("all.bin", format="text")))[0] == 400
    assert (await contents.get("all.bin", content=False))["content"] is None


async def test_large_files_come_in_pieces(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    for chunk, part in ((1, b"one "), (2, b"two "), (-1, b"three")):
        content = base64.b64encode(part).decode()
        model = {"type": "file", "format": "base64", "content": content, "chunk": chunk}
        await contents.save(model, "pieces")
    assert await sandbox.read_file("/workspace/pieces") == b"one two three"


async def test_directories_and_links(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    await contents.save({"type": "directory"}, "deep/er")
    await sandbox.exec("cd deep; echo x > file; ln -s er by; ln -s ../deep/file f; ln -s loop loop")
    await sandbox.exec("touch deep/.hidden")
    found = await contents.get("deep")
    kinds = {each["path"]: each["type"] for each in found["content"]}
    assert kinds == {
        "deep/er": "directory",
        "deep/by": "directory",
        "deep/file": "file",
        "deep/f": "file",
        "deep/loop": "file",
    }
    assert (await contents.get("deep/f"))["content"] == "x\n"
    await sandbox.exec(
        "cd ..; ln -s deep/file/no odd; mkdir -p far/runs far/in; echo y >far/runs/it"
    )
    await sandbox.exec("ln -s far/in near; ln -s ../runs/it far/in/latest")
    kinds = {each["path"]: each["type"] for each in (await contents.get(""))["content"]}
    assert kinds == {"deep": "directory", "odd": "file", "far": "directory", "near": "directory"}
    assert (await contents.get("near/latest"))["content"] == "y\n"
    assert await contents.dir_exists("deep/by") and not await contents.file_exists("deep/by")
    assert not await contents.file_exists("deep/loop")
    assert await contents.is_hidden("deep/.hidden")
    assert {each["name"] for each in (await contents.get("/far"))["content"]} == {"runs", "in"}
    assert (await status(contents.get("deep", type="file")))[0] == 400


async def test_renamed_copied_deleted(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    await contents.save({"type": "file", "format": "text", "content": "x"}, "one")
    await contents.rename_file("one", "two")
    assert not await contents.file_exists("one")
    assert (await contents.copy("two"))["path"] == "two-Copy1"
    assert (await contents.new_untitled(type="directory"))["path"] == "Untitled Folder"
    await contents.delete_file("two")
    names = {each["name"] for each in (await contents.get(""))["content"]}
    assert names == {"two-Copy1", "Untitled Folder"}
    assert (await status(contents.rename_file("two", "three")))[0] == 404
    assert await contents.list_checkpoints("two-Copy1") == []


async def test_notebooks(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    saved = await contents.save(notebook("1", "2"), "of mine.ipynb")
    assert (saved["type"], saved["content"]) == ("notebook", None)
    found = await contents.get("of mine.ipynb")
    assert [cell["source"] for cell in found["content"]["cells"]] == ["1", "2"]
    assert "message" not in found
    assert (await contents.get("of mine.ipynb", type="file"))["format"] == "text"


async def test_outputs_are_trusted_by_who_saved_them(
    contents: SessionContents, sandbox: AsyncSandbox
) -> None:
    """A page with a script that code wrote into a notebook must not run in the browser."""
    model = notebook("1")
    page = nbformat.v4.new_output("display_data", {"text/html": "<script>x</script>"})
    model["content"].cells[0].outputs = [page]
    written = nbformat.writes(model["content"])
    await sandbox.write_file("/workspace/foreign.ipynb", written)
    found = await contents.get("foreign.ipynb")
    assert found["content"].cells[0].metadata.trusted is False
    found["content"].cells[0].metadata.trusted = True
    await contents.save(found, "mine.ipynb")
    assert (await contents.get("mine.ipynb"))["content"].cells[0].metadata.trusted is True


async def test_what_is_wrong_is_told(contents: SessionContents, sandbox: AsyncSandbox) -> None:
    await sandbox.write_file("/workspace/bad.ipynb", "{")
    assert (await status(contents.get("bad.ipynb")))[0] == 400
    assert (await contents.get("bad.ipynb", type="file"))["content"] == "{"
    for model in ({"type": "notebook", "content": [1]}, {"type": "notebook"}, {"type": "file"}):
        assert (await status(contents.save(model, "x.ipynb")))[0] == 400
    assert (await status(contents.get("missing")))[0] == 404
    assert (await status(contents.rename_file("missing", "there")))[0] == 404


async def test_a_service_that_says_no(
    contents: SessionContents, sandbox: AsyncSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await contents.save({"type": "file", "format": "text", "content": "x", "chunk": None}, "a")
    await contents.save({"type": "file", "format": "text", "content": "y", "chunk": 0}, "a")
    assert (await contents.get("a"))["content"] == "y"
    await contents.close()
    monkeypatch.setenv(SESSION, "gone")
    assert (await status(contents.file_exists("a")))[0] == 404
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    await contents.close()
    assert (await status(contents.get("a")))[0] == 503
