"""A service whose boxes have no namespaces, in a directory that users of boxes can pass."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from interpreter.errors import NotReady
from interpreter.interpreter import Interpreter
from interpreter.settings import Settings


@contextmanager
def passable_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cellshell-tier-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def serving_processes() -> AsyncIterator[Interpreter]:
    """Skips where the tier cannot be had, and says why."""
    with passable_directory() as directory:
        settings = Settings(home=directory / "home", isolation="process", interrupt_grace=0.5)
        try:
            interpreter = await Interpreter(settings).__aenter__()
        except NotReady as error:
            pytest.skip(error.message)
        try:
            yield interpreter
        finally:
            await interpreter.__aexit__(None, None, None)
