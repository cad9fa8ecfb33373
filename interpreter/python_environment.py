"""The default Python kernel's environment, and what every box needs of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING

from interpreter import python_build
from interpreter.errors import NotReady
from interpreter.python_build import REQUIREMENTS
from kernels.specs import find_deno

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from interpreter.settings import Settings

INSIDE = "/opt/cellshell/python"
"""Where a box sees the environment."""
DENO_INSIDE = "/opt/cellshell/bin/deno"


@dataclass(frozen=True)
class PythonEnvironment:
    """An environment that has ipykernel, and the interpreter it stands on."""

    path: Path
    executable: str
    """The base interpreter, by its real path, which is the same in a box."""
    version: str
    """`3.11`"""

    @classmethod
    def read(cls, path: Path) -> PythonEnvironment:
        """Raises NotReady when no kernel can be started from `path`."""
        executable = os.path.realpath(path / "bin" / "python")
        for found in sorted(path.glob("lib/python3.*/site-packages/ipykernel/__init__.py")):
            if os.access(executable, os.X_OK):
                return cls(path, executable, found.parts[-4].removeprefix("python"))
        raise NotReady(
            f"expected a Python environment with ipykernel in {path}, found none: let Cellshell "
            "make one (a path that does not exist yet), or install ipykernel there"
        )

    @property
    def prefix(self) -> str:
        """What of the base interpreter a box must see."""
        return os.path.dirname(os.path.dirname(self.executable))

    def site_packages(self, root: str = INSIDE) -> str:
        """Its libraries, where a place that has it at `root` sees them."""
        return f"{root}/lib/python{self.version}/site-packages"

    @cached_property
    def scripts(self) -> Mapping[str, tuple[str, str]]:
        """Console scripts of its packages: name to module and function."""
        packages = metadata.distributions(path=[self.site_packages(str(self.path))])
        return {
            entry.name: (entry.module, entry.attr)
            for package in packages
            for entry in package.entry_points
            if entry.group == "console_scripts" and "/" not in entry.name
        }


async def ensure(
    settings: Settings,
    on_progress: Callable[[str], None],
    *,
    requirements: Sequence[str] = REQUIREMENTS,
) -> Path:
    """The kernel environment's path, once it is there. Raises NotReady.

    One that Cellshell made is made anew when its requirements changed; any other is used as it is.
    """
    path = settings.python_home.absolute()
    if not python_build.is_current(path, requirements) and not python_build.is_foreign(path):
        await _build(path, on_progress, requirements)
    PythonEnvironment.read(path)
    return path


async def _build(
    path: Path, on_progress: Callable[[str], None], requirements: Sequence[str]
) -> None:
    process = await asyncio.create_subprocess_exec(
        python_build.base_executable(),
        "-I",
        python_build.__file__,
        str(path),
        *requirements,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=1 << 20,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=20)
    try:
        async for line in process.stdout:
            last.append(line.decode(errors="replace").rstrip())
            on_progress(last[-1])
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if code:
        raise NotReady("the kernel environment could not be made: " + "\n".join(last))


def mounts(settings: Settings) -> list[tuple[str, str]]:
    """What a box needs read-only, beside `/usr`, for the kernels: host path and path inside.

    A base interpreter appears at its own path, since its libraries may be linked by that.
    """
    environment = PythonEnvironment.read(settings.python_home.absolute())
    service = os.path.dirname(os.path.dirname(python_build.base_executable()))
    prefixes = {service, os.path.realpath(sys.base_prefix), environment.prefix}
    found = [(prefix, prefix) for prefix in sorted(prefixes) if not _is_below_usr(prefix)]
    found.append((os.path.realpath(environment.path), INSIDE))
    deno = find_deno()
    if deno is not None:
        found.append((str(deno), DENO_INSIDE))
    return found


def _is_below_usr(path: str) -> bool:
    return path == "/usr" or path.startswith("/usr/")
