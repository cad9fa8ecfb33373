"""A real interpreter with real boxes; a session of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asking import Python, Shell, python_of, shell_of

from interpreter.interpreter import Interpreter
from interpreter.models import CreateSandbox, CreateSession
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from interpreter.settings import Settings


@pytest_asyncio.fixture(scope="session")
async def interpreter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Interpreter]:
    settings = Settings(home=tmp_path_factory.mktemp("interpreter"), interrupt_grace=2.0)
    async with Interpreter(settings) as interpreter:
        yield interpreter


@pytest_asyncio.fixture(scope="module")
async def sandbox(interpreter: Interpreter) -> AsyncIterator[Sandbox]:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    yield sandbox
    await interpreter.delete_sandbox(sandbox.id)


@pytest_asyncio.fixture
async def session(sandbox: Sandbox) -> AsyncIterator[Session]:
    session = await sandbox.create_session(CreateSession())
    yield session
    if session in sandbox.sessions():
        await sandbox.delete_session(session.id)


@pytest.fixture
def shell(session: Session) -> Shell:
    return shell_of(session)


@pytest.fixture
def python(session: Session) -> Python:
    return python_of(session)
