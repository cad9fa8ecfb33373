"""`cellshell doctor`: what works on this machine, tried for real, and what to install."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.command_connection import finish, show, visible
from api.command_serve import read_settings
from interpreter.client_local import temporary_settings
from interpreter.errors import CellshellError, NotReady
from interpreter.models import CreateSandbox, Exec, Isolation, RunCode
from interpreter.settings import Settings

if TYPE_CHECKING:
    from interpreter.interpreter import Interpreter

TOOLS = {
    "bwrap": ("the strongest isolation", "apt install bubblewrap"),
    "git": ("git checkout", "apt install git"),
    "node": ("JavaScript tools in the shell", "apt install nodejs"),
    "npm": ("JavaScript packages", "apt install npm"),
}
"""Programs, what they are for, and how to get them."""

Try = Annotated[bool, typer.Option("--try/--no-try", help="Run something in a real sandbox.")]


@dataclass(frozen=True)
class Finding:
    """One line of the report. What is `needed` and not `fine` makes the exit status 1."""

    fine: bool
    what: str
    detail: str
    needed: bool = False

    def __str__(self) -> str:
        mark = "ok     " if self.fine else "MISSING" if self.needed else "-      "
        return f"{mark}  {self.what}: {visible(self.detail)}"


def doctor(run: Try = True) -> None:
    """Say what works here and what to install for the rest."""
    finish(_doctor(run))


async def _doctor(run: bool) -> int:
    settings = read_settings({})
    failed = False
    async for finding in _findings(settings, run):
        show(f"{finding}\n".encode("utf-8", "replace"))
        failed |= finding.needed and not finding.fine
    return int(failed)


async def _findings(settings: Settings, run: bool) -> AsyncIterator[Finding]:
    # Half a second of imports, which the other commands do without.
    from interpreter.isolation import probe
    from interpreter.limits import Enforcement
    from kernels.specs import Languages, find_deno

    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    yield Finding(platform.system() == "Linux", "system", system)
    for finding in _programs():
        yield finding
    try:
        isolation = await probe(settings)
    except NotReady as error:
        yield Finding(False, "isolation", error.message, needed=True)
        return
    with tempfile.TemporaryDirectory(prefix="cellshell-doctor-") as directory:
        enforcement = await Enforcement.probe(temporary_settings(Path(directory)), isolation)
        enforcement.close()
    isolation = enforcement.describe(isolation)
    confined = isolation.tier != "none"
    yield Finding(confined, "isolation", f"{isolation.tier}: {isolation.reason}", needed=True)
    yield _limits(isolation)
    yield _survival()
    for each in Languages(deno=find_deno()).all():
        detail = each.reason or f"kernel {each.kernel}"
        yield Finding(each.available, f"language {each.name}", detail)
    environment = _environment(settings)
    yield environment
    if run and environment.fine:
        with tempfile.TemporaryDirectory(prefix="cellshell-doctor-") as directory:
            yield await _trial(temporary_settings(Path(directory)))


def _programs() -> Iterator[Finding]:
    for program, (purpose, remedy) in TOOLS.items():
        path = shutil.which(program)
        detail = path or f"not found; for {purpose}: {remedy}"
        yield Finding(path is not None, program, detail)


def _limits(isolation: Isolation) -> Finding:
    found = isolation.limits.model_dump()
    named = ", ".join(f"{name} ({how})" for name, how in found.items() if how)
    lacking = ", ".join(name for name, how in found.items() if not how)
    detail = f"{named or 'none'}{'; not ' + lacking if lacking else ''}"
    return Finding(not lacking, "limits", detail)


def _survival() -> Finding:
    """Whether boxes can outlive the service on this machine."""
    with suppress(OSError):
        if b"cellshell" in Path("/proc/1/cmdline").read_bytes():
            detail = "the service is pid 1 of a container: with it end all sandboxes"
            return Finding(False, "survival", f"{detail}; start it by an init, `docker run --init`")
    return Finding(True, "survival", "sandboxes outlive a service that ends or crashes")


def _environment(settings: Settings) -> Finding:
    python = settings.python_home / "bin" / "python"
    fine = os.access(python, os.X_OK)
    detail = (
        str(settings.python_home) if fine else f"not at {settings.python_home}: cellshell setup"
    )
    return Finding(fine, "kernel environment", detail, needed=True)


async def _trial(settings: Settings) -> Finding:
    """A cell and a command in one session, which has to be shared between them."""
    from interpreter.interpreter import Interpreter

    try:
        async with Interpreter(settings) as interpreter:
            said = await _said(interpreter)
    except CellshellError as error:
        return Finding(False, "a sandbox", error.message, needed=True)
    fine = said == "42\n"
    detail = "a cell and a command ran, in one environment" if fine else f"said {said!r}"
    return Finding(fine, "a sandbox", detail, needed=True)


async def _said(interpreter: Interpreter) -> str:
    sandbox = await interpreter.create_sandbox(CreateSandbox())
    try:
        session = sandbox.session("default")
        cell = await session.run_code(RunCode(code="import os; os.environ['SEEN'] = str(6 * 7)"))
        await cell.result()
        command = await session.exec(Exec(command="echo $SEEN"))
        return (await command.result()).stdout
    finally:
        await interpreter.delete_sandbox(sandbox.id)
