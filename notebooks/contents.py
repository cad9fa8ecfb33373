"""Files of a session as JupyterLab's contents, by way of the files API: the box stays closed.

Used inside a Jupyter Server, which `cellshell lab` starts: nothing else imports this.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
import os
import posixpath
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import nbformat
from jupyter_server.services.contents.checkpoints import AsyncCheckpoints
from jupyter_server.services.contents.manager import AsyncContentsManager
from nbformat import NotebookNode
from tornado.web import HTTPError
from traitlets import Type

from interpreter.client import AsyncClient
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import CellshellError, FileNotFound, NotADirectory
from interpreter.models import FileInfo

ROOT = "/workspace"
URL, TOKEN = "CELLSHELL_URL", "CELLSHELL_TOKEN"
SANDBOX, SESSION = "CELLSHELL_SANDBOX", "CELLSHELL_SESSION"
"""Where the server finds in its environment what it is for."""
HASH = "sha256"
MOST_LINKS = 40
"""That lead to each other, as in Linux."""

Model = dict[str, Any]


class NoCheckpoints(AsyncCheckpoints):
    """There are none: a save is a save."""

    async def create_checkpoint(self, contents_mgr: SessionContents, path: str) -> Model:
        return {"id": "none", "last_modified": datetime.now(UTC)}

    async def list_checkpoints(self, path: str) -> list[Model]:
        return []

    async def restore_checkpoint(
        self, contents_mgr: SessionContents, checkpoint_id: str, path: str
    ) -> None:
        raise HTTPError(
            404, "there are no checkpoints: the history of the session has what was run"
        )

    async def rename_checkpoint(self, checkpoint_id: str, old_path: str, new_path: str) -> None:
        """None is kept."""

    async def delete_checkpoint(self, checkpoint_id: str, path: str) -> None:
        """None is kept."""


class SessionContents(AsyncContentsManager):
    """Paths are below the workspace of one session, which its environment names."""

    checkpoints_class = Type(NoCheckpoints, config=True)
    _client: AsyncClient | None = None
    _session: AsyncSandbox | AsyncSession | None = None

    async def close(self) -> None:
        """Its connections; it opens new ones when it is used again."""
        client, self._client, self._session = self._client, None, None
        if client is not None:
            await client.aclose()

    async def dir_exists(self, path: str) -> bool:
        info = await self._info(path)
        return info is not None and info.type == "directory"

    async def file_exists(self, path: str) -> bool:
        info = await self._info(path)
        return info is not None and info.type == "file"

    async def is_hidden(self, path: str) -> bool:
        return any(part.startswith(".") for part in path.split("/"))

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,
        format: str | None = None,
        require_hash: bool = False,
    ) -> Model:
        """Raises HTTPError."""
        info = await self._info(path)
        if info is None:
            raise HTTPError(404, f"there is no {path!r}")
        model = _model(path, info)
        if (type == "directory") != (model["type"] == "directory") and type is not None:
            raise HTTPError(400, f"{path!r} is a {model['type']}", reason="bad type")
        if type is not None:
            model["type"] = type
        if model["type"] == "directory":
            return await self._directory(model, path) if content else model
        if content or require_hash:
            data = await self._read(path)
            if require_hash:
                model |= {"hash": hashlib.sha256(data).hexdigest(), "hash_algorithm": HASH}
            if content:
                model |= _content(model, data, format)
            if content and model["type"] == "notebook":
                self.mark_trusted_cells(model["content"], path)
                self.validate_notebook_model(model)
        return model

    async def save(self, model: Model, path: str) -> Model:
        """Raises HTTPError."""
        self.run_pre_save_hooks(model=model, path=path)
        if model.get("type") == "directory":
            await self._do("mkdir", _place(path))
        else:
            # Large files come in pieces: the first is 1, the last -1.
            append = (model.get("chunk") or 1) != 1
            await self._do("write_file", _place(path), self._data(model, path), append=append)
        return await self.get(path, type=model.get("type"), content=False)

    async def delete_file(self, path: str) -> None:
        await self._do("delete_file", _place(path), recursive=True)

    async def rename_file(self, old_path: str, new_path: str) -> None:
        await self._do("move_file", _place(old_path), _place(new_path))

    async def _directory(self, model: Model, path: str) -> Model:
        hidden = self.allow_hidden
        entries: list[FileInfo] = await self._do("list_files", _place(path), hidden=hidden)
        shown = [each for each in entries if self.should_list(each.name)]
        models = [await self._entry(posixpath.join(path, each.name), each) for each in shown]
        return {**model, "content": models, "format": "json"}

    async def _entry(self, path: str, info: FileInfo) -> Model:
        """A link that leads nowhere, or where nobody may look, is shown as it is."""
        followed = None
        if info.type == "symlink":
            with suppress(HTTPError):
                followed = await self._info(path)
        return _model(path, followed or info)

    async def _read(self, path: str) -> bytes:
        data: bytes = await self._do("read_file", _place(path))
        return data

    async def _info(self, path: str) -> FileInfo | None:
        """Of what a link leads to, which is what is opened."""
        place = _place(path)
        try:
            session = await self._open()
            for _ in range(MOST_LINKS):
                info = await session.file_info(place)
                if info.target is None:
                    return info
                # The service takes `..` as the kernel does: behind what a link leads to.
                place = posixpath.join(posixpath.dirname(place), info.target)
        except (FileNotFound, NotADirectory):
            return None
        except CellshellError as error:
            raise HTTPError(error.status, error.message) from None
        return None

    async def _do(self, call: str, *words: Any, **options: Any) -> Any:
        try:
            session = await self._open()
            return await getattr(session, call)(*words, **options)
        except CellshellError as error:
            raise HTTPError(error.status, error.message) from None

    def _data(self, model: Model, path: str) -> bytes:
        content = model.get("content")
        match model.get("type"), model.get("format"):
            case "notebook", _:
                notebook = _whole(content)
                self.check_and_sign(notebook, path)
                return f"{nbformat.writes(notebook)}\n".encode()
            case _, "base64":
                return _unpacked(str(content))
            case _, "text" | None if isinstance(content, str):
                return content.encode()
        raise HTTPError(400, "expected a notebook, text, or bytes in base64")

    async def _open(self) -> AsyncSandbox | AsyncSession:
        if self._client is None:
            self._client = AsyncClient(os.environ[URL], os.environ.get(TOKEN))
        if self._session is None:
            sandbox = await self._client.get_sandbox(os.environ[SANDBOX])
            self._session = await sandbox.get_session(os.environ.get(SESSION, "default"))
        return self._session


def _place(path: str) -> str:
    return posixpath.join(ROOT, path.strip("/")) if path.strip("/") else ROOT


def _model(path: str, info: FileInfo) -> Model:
    kind = "directory" if info.type == "directory" else "file"
    if kind == "file" and path.endswith(".ipynb"):
        kind = "notebook"
    modified = datetime.fromisoformat(info.modified_at)
    return {
        "name": posixpath.basename(path.strip("/")),
        "path": path.strip("/"),
        "type": kind,
        "size": info.size if kind != "directory" else None,
        "writable": True,
        "created": modified,
        "last_modified": modified,
        "mimetype": None,
        "content": None,
        "format": None,
    }


def _content(model: Model, data: bytes, wanted: str | None) -> Model:
    if model["type"] == "notebook":
        return {"content": _notebook(data), "format": "json"}
    kind = mimetypes.guess_type(model["name"])[0]
    if wanted != "base64":
        try:
            text = data.decode()
            return {"content": text, "format": "text", "mimetype": kind or "text/plain"}
        except UnicodeDecodeError:
            if wanted == "text":
                raise HTTPError(400, f"{model['path']!r} is no text in UTF-8") from None
    packed = base64.encodebytes(data).decode("ascii")
    return {"content": packed, "format": "base64", "mimetype": kind or "application/octet-stream"}


def _notebook(data: bytes) -> NotebookNode:
    try:
        found: NotebookNode = nbformat.reads(data.decode(), as_version=4)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise HTTPError(400, f"this is no notebook: {error}") from None
    return found


def _whole(content: object) -> NotebookNode:
    notebook = nbformat.from_dict(content)
    if not isinstance(notebook, NotebookNode) or "cells" not in notebook:
        raise HTTPError(400, "expected the content of a notebook of version 4")
    return notebook


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise HTTPError(400, f"expected content in base64: {error}") from None
