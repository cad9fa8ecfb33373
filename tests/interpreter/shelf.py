"""The files of a session in a real box, with its workspace as the host sees it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from boxed_session import BoxedSession

from interpreter.files import Files


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Shelf:
    def __init__(self, session: BoxedSession) -> None:
        self.session = session
        self.files = Files(session.get_box, self.resolve)
        self.host = Path(session.box.plan.files) / "workspace"

    def resolve(self, path: str) -> str:
        """Absolute, and otherwise as it was given."""
        return os.path.join(self.session.environment.cwd, path)

    async def run(self, *argv: str) -> int:
        """The exit code of a program in the workspace."""
        box = self.session.box
        process = await box.spawn(argv, env={"PATH": os.defpath}, cwd=box.paths.workspace)
        code = await process.wait()
        await process.release()
        return code

    async def python(self, code: str, *arguments: str) -> int:
        return await self.run(self.session.box.python, "-c", code, *arguments)

    async def put(self, path: str, data: bytes = b"") -> None:
        await self.files.write(path, chunks(data))

    async def get(self, path: str) -> bytes:
        opened = await self.files.read(path)
        with os.fdopen(opened.fd, "rb") as file:
            return file.read()

    async def clear(self) -> None:
        """Empty the workspace; nothing of ours may be in it."""
        ours = [path.name for path in self.host.rglob(".cellshell-*")]
        assert await self.run("find", ".", "-mindepth", "1", "-delete") == 0
        assert ours == []
