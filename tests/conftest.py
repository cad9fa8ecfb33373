"""For all tests: the kernel environment, what ran in boxes, and that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
os.environ.setdefault("CELLSHELL_KERNEL_ENVIRONMENT", str(ROOT / ".kernel" / "python"))
os.environ.setdefault(
    "CELLSHELL_TEST_PYTHON", os.environ["CELLSHELL_KERNEL_ENVIRONMENT"] + "/bin/python"
)

IN_BOXES = {"http", "base_url", "sandbox", "interpreter", "session", "box", "live_service"}
"""Fixtures whose tests run code in a box, where boxes can be built."""
OURS = (b"guest/init.py", b"guest/launcher.py", b"guest/python_kernel.py", b"guest/worker.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if IN_BOXES & set(getattr(item, "fixturenames", ())):
            item.add_marker("box")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_before] = _processes()


def pytest_sessionfinish(session: pytest.Session) -> None:
    left = {
        pid: words
        for pid, words in _processes().items()
        if pid not in session.config.stash[_before]
    }
    session.config.stash[_left] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
    for pid, words in config.stash[_left].items():
        terminalreporter.write_line(f"LEFT BEHIND: process {pid}: {words}", red=True)


_before = pytest.StashKey[dict[int, str]]()
_left = pytest.StashKey[dict[int, str]]()


def _processes() -> dict[int, str]:
    """What of ours runs on this machine."""
    return dict(_running())


def _running() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if any(name in words for name in OURS):
            yield int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")[:200]
