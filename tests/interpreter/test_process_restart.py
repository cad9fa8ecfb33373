"""Boxes without namespaces outlive the service, and the next one takes them up."""

# ruff: noqa: F401  (imported tests run again, with the fixture of this module)

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_tier import passable_directory
from restarting import BASE, SANDBOX, Service, serving

from interpreter.errors import NotReady
from interpreter.isolation import probe
from interpreter.settings import Settings
from tests.interpreter.test_restart import *

pytestmark = pytest.mark.box


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("CELLSHELL_ISOLATION", "process")
    with passable_directory() as directory:
        try:
            await probe(Settings(home=directory / "home"))
        except NotReady as error:
            pytest.skip(error.message)
        async with serving(directory / "home") as service:
            yield service
