"""Builds the default kernel environment: ipykernel and the data libraries.

A program of its own (`python_build.py PATH`) that needs the standard library alone: set-up runs it
before anything is installed, the service when its environment is missing, and whoever starts it
may end it at any moment. Of builds that run at once one does the work.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REQUIREMENTS = (
    "ipykernel>=7.0,<8",
    "matplotlib>=3.9,<4",
    "numpy>=2.0,<3",
    "orjson>=3.10,<4",
    "pandas>=2.2,<4",
    "pillow>=11,<14",
    "pip>=24.1",
)
"""What is importable in every Python context. A change makes the next start build anew.

`jupyter_client` uses orjson for the messages of a kernel, where it finds it.
"""
STAMP = "cellshell-environment.json"
TOLD = re.compile(r"\s*(Downloading|Using cached|Building wheel|Installing collected)\b")
DEAF = ("PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT", "PIP_TARGET", "PIP_USER", "PYTHONHOME")
"""Variables of the operator's that would send packages elsewhere; the index is theirs to choose."""


class BuildFailed(Exception):
    """Carries what to tell the operator."""


def base_executable() -> str:
    """The interpreter itself, whatever virtual environment this process runs in."""
    return os.path.realpath(sys.executable)


def is_current(path: Path, requirements: Sequence[str] = REQUIREMENTS) -> bool:
    """Whether `path` was built here from these requirements for this Python."""
    try:
        return (path / STAMP).read_text() == _stamp(requirements)
    except (OSError, ValueError):
        return False


def is_foreign(path: Path) -> bool:
    """Whether `path` is somebody else's: it is used as it is, and never replaced."""
    try:
        return not (path / STAMP).is_file() and any(path.iterdir())
    except NotADirectoryError:
        return True
    except FileNotFoundError:
        return False


def build(path: Path, requirements: Sequence[str] = REQUIREMENTS) -> None:
    """Make the environment at `path` unless it is there. Raises BuildFailed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_name(f"{path.name}.lock")) as lock:
        if is_current(path, requirements):
            return
        if is_foreign(path):
            raise BuildFailed(
                f"{path} exists and was not made by Cellshell, so it is left alone: expected a "
                "virtual environment with ipykernel, or a path that does not exist yet"
            )
        fresh = path.with_name(f"{path.name}.building")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _fill(fresh, path, requirements, lock)
            _put(fresh, path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def _fill(fresh: Path, path: Path, requirements: Sequence[str], lock: int) -> None:
    started = time.monotonic()
    _say(f"Making the kernel environment in {path}: once, about a minute")
    _run([base_executable(), "-I", "-m", "venv", str(fresh)], lock, started)
    pip = [str(fresh / "bin" / "python"), "-I", "-m", "pip", "install"]
    options = ["--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    _run([*pip, *options, "--progress-bar", "off", *requirements], lock, started)
    _relocate(fresh, path)
    (fresh / STAMP).write_text(_stamp(requirements))
    _say(f"The kernel environment is ready after {time.monotonic() - started:.0f} s")


def _run(command: Sequence[str], lock: int, started: float) -> None:
    """The lock's descriptor goes along: a build goes on as long as what it started."""
    last: deque[str] = deque(maxlen=15)
    env = {name: value for name, value in os.environ.items() if name not in DEAF}
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock],
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            if TOLD.match(line):
                _say(f"{time.monotonic() - started:4.0f} s  {line.strip()[:160]}")
    if process.returncode:
        raise BuildFailed(_explain(command, process.returncode, "\n".join(last)))


def _explain(command: Sequence[str], code: int, output: str) -> str:
    if "ensurepip" in output:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        remedy = f"install Python's venv module: apt-get install python{version}-venv"
    elif "No space left" in output:
        remedy = "free about 500 MB, or choose another place with CELLSHELL_KERNEL_ENVIRONMENT"
    else:
        remedy = (
            "check the network and pip's settings (PIP_INDEX_URL, proxies), or name a virtual "
            "environment that has ipykernel in CELLSHELL_KERNEL_ENVIRONMENT"
        )
    return f"{output}\n{' '.join(command[:4])}... failed with exit code {code}: {remedy}"


def _relocate(fresh: Path, path: Path) -> None:
    """Scripts and pyvenv.cfg name the directory the environment was built in."""
    old, new = os.fsencode(fresh), os.fsencode(path)
    for file in (fresh / "pyvenv.cfg", *(fresh / "bin").iterdir()):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            if old in content:
                file.write_bytes(content.replace(old, new))


def _put(fresh: Path, path: Path) -> None:
    """Running boxes still have the environment before mounted: it goes with the next build."""
    previous = path.with_name(f"{path.name}.previous")
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)
    fresh.rename(path)


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another start is making the kernel environment: waiting for it")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _stamp(requirements: Sequence[str]) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    content = {
        "python": base_executable(),
        "version": version,
        "requirements": sorted(requirements),
    }
    return json.dumps(content, indent=2) + "\n"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """`python_build.py PATH [REQUIREMENT...]`; the exit code says whether PATH is usable."""
    if len(sys.argv) < 2:
        _say("expected the path of the kernel environment to make: python_build.py PATH")
        return 2
    try:
        build(Path(sys.argv[1]).absolute(), sys.argv[2:] or REQUIREMENTS)
    except BuildFailed as error:
        _say(str(error))
        return 1
    except OSError as error:
        _say(f"the kernel environment cannot be made: {error}: check the directory's permissions")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
