"""Control groups of version 2 in User Mode Linux, which has them whatever this machine has."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LINUX = shutil.which("linux.uml")
ROOT = Path(__file__).parents[2]
EFFECTS = "tests/interpreter/test_cgroup_effects.py"
NO_START = "ptrace set fp regs failed"
"""Its kernel knows fewer registers than the processor has; no process of it runs then."""
PASSED_ON = ("CELLSHELL_KERNEL_ENVIRONMENT", "CELLSHELL_TEST_PYTHON", "PATH", "LC_ALL")

pytestmark = pytest.mark.skipif(
    LINUX is None, reason="linux.uml (Debian package user-mode-linux) is not installed"
)


def pytest_there(directory: Path, *words: str, memory: str = "512M", timeout: float) -> str:
    """What pytest says there, after it was called with those words."""
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables |= {"HOME": "/run", "TMPDIR": "/run/tmp"}
    pytest_ = [sys.executable, "-B", "-m", "pytest", "--color=no", "-p", "no:cacheprovider", "-q"]
    lines = [
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        f"cd {shlex.quote(str(ROOT))}",
        "echo 0 >/sys/fs/cgroup/ours/cgroup.procs",
        f"exec {shlex.join([*pytest_, *words])}",
    ]
    (directory / "run").write_text("\n".join(lines) + "\n")
    return booted(directory, memory, timeout)


def booted(directory: Path, memory: str, timeout: float) -> str:
    assert LINUX
    process = subprocess.Popen(
        [
            *(LINUX, f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"),
            *("con=null", "con0=null,fd:1", f"uml_dir={directory}", f"init={ROOT}/tests/uml/init"),
            f"CELLSHELL_RUN={directory}/run",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={},
    )
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    text = said.decode(errors="replace")
    if NO_START in text:
        pytest.skip(f"User Mode Linux does not start on this processor: {NO_START}")
    return text


def passed(said: str, least: int) -> None:
    """All of them, and as many as there are: a test that is skipped there says nothing."""
    assert "ended: 0" in said, said
    summary = re.search(r"(\d+) passed(.*)", said)
    assert summary and int(summary[1]) >= least, said
    assert "skipped" not in summary[2], said


def test_what_groups_do(tmp_path: Path) -> None:
    passed(pytest_there(tmp_path, EFFECTS, "-k", "2", timeout=55), 6)


@pytest.mark.stress
@pytest.mark.box
@pytest.mark.skipif(os.geteuid() != 0, reason="root, to have boxes there, is not installed")
@pytest.mark.timeout(900)
def test_limits_and_pauses_of_whole_sandboxes(tmp_path: Path) -> None:
    words = ["tests/interpreter/test_limits.py", "tests/interpreter/test_pausing.py"]
    chosen = "memory or pids or cpus or too_much or cgroup2"
    said = pytest_there(tmp_path, *words, "-k", chosen, "--timeout=200", memory="1G", timeout=800)
    passed(said, 20)
