"""For all tests: the kernel environment, what ran in boxes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from interpreter import isolation
from interpreter.errors import NotReady
from interpreter.settings import Settings
from tests.leftovers import adopt_orphans, left_behind

ROOT = Path(__file__).parent.parent
os.environ["CELLSHELL_ON_STOP"] = "destroy"
os.environ.setdefault("CELLSHELL_READY_BOXES", "0")  # they would be counted among what is left
os.environ.setdefault("CELLSHELL_KERNEL_ENVIRONMENT", str(ROOT / ".kernel" / "python"))
os.environ.setdefault(
    "CELLSHELL_TEST_PYTHON", os.environ["CELLSHELL_KERNEL_ENVIRONMENT"] + "/bin/python"
)

IN_BOXES = {"http", "base_url", "sandbox", "interpreter", "session", "box", "live_service"}
"""Fixtures whose tests run code in a box, where boxes can be built."""

NOBODYS_FAULT = ("is not installed", "cannot pass")
"""In the reason of a skip: CI installs R, Chromium and strace, and opens directories, if it can."""

_required = pytest.StashKey[bool]()
_left = pytest.StashKey[dict[int, str]]()
_left_everywhere: dict[int, str] = {}
LEFT = "left_behind"


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    # A shell starts what it runs in the background with SIGINT ignored, and so would we ours.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # `.ci/run` asks for this: a test that is skipped there would be missed by nobody.
    asked = os.environ.get("CELLSHELL_TEST_BOXES") == "required"
    config.stash[_required] = asked and asyncio.run(_boxes_work())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if IN_BOXES & set(getattr(item, "fixturenames", ())):
            item.add_marker("box")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    report = yield
    expected = not item.config.stash[_required] or hasattr(report, "wasxfail")
    expected = expected or any(why in str(report.longrepr) for why in NOBODYS_FAULT)
    if report.skipped and "box" in report.keywords and not expected:
        report.outcome = "failed"
        report.longrepr = f"boxes can be built here, yet this was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(trylast=True)  # after the last fixtures have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    left = session.config.stash[_left] = _left_everywhere.copy() | left_behind()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[LEFT] = list(left.items())
    elif left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_testnodedown(node: Any) -> None:
    """One of several processes that run tests has ended."""
    _left_everywhere.update(getattr(node, "workeroutput", {}).get(LEFT, ()))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = {
        outcome: [r for r in terminalreporter.getreports(outcome) if "box" in r.keywords]
        for outcome in ("passed", "failed", "skipped")
    }
    ran = len(counts["passed"]) + len(counts["failed"])
    terminalreporter.write_line(f"tests in boxes: {ran} ran, {len(counts['skipped'])} skipped")
    for report in counts["skipped"]:
        terminalreporter.write_line(f"  skipped {report.nodeid}: {report.longrepr}")
    for pid, words in config.stash.get(_left, {}).items():
        terminalreporter.write_line(f"LEFT BEHIND: process {pid}: {words}", red=True)


async def _boxes_work() -> bool:
    try:
        return (await isolation.probe(Settings(isolation="bwrap"))).tier == "bwrap"
    except NotReady:
        return False
