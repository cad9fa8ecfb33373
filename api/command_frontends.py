"""`cellshell lab` and `cellshell console`: Jupyter's frontends on a session."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Annotated

import typer

from api.command_connection import DEFAULT_URL, Address, SessionId, Token, Url, finish, say
from interpreter.client_session import AsyncSandbox, AsyncSession
from interpreter.errors import ContextNotFound, FileNotFound, InvalidRequest, NotReady

KERNEL = "CELLSHELL_KERNEL"
PYTHON = (sys.executable, "-P")
"""Imports nothing from the working directory, which may be anybody's."""
SHELL = "$"
"""What frontends call the shell of a session."""

Place = Annotated[str, typer.Argument(help="The sandbox; made if it is missing.")]
Whole = Annotated[str, typer.Argument(help="SANDBOX/SESSION, or SANDBOX/SESSION/CONTEXT.")]
Bash = Annotated[bool, typer.Option("--bash", help="On the session's shell.")]
More = Annotated[list[str] | None, typer.Argument(help="After `--`, for JupyterLab itself.")]


def lab(
    sandbox: Place = "default",
    more: More = None,
    session: SessionId = "default",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Open JupyterLab on a session: its files, and a notebook on its live Python context."""

    async def work() -> int:
        _needs("jupyterlab", "lab")
        address = Address(url, token, sandbox, session)
        async with address.open() as where:
            kernel = await _python(where)
            name = f"{session}.ipynb"
            await _prepare(where, name, f"running-{kernel[:8]}")
        say(f"JupyterLab on {sandbox}/{session}; Ctrl-C ends it, the session goes on")
        _become(_lab_words(name, more or ()), _environment(address))
        return 0

    finish(work())


def console(place: Whole, bash: Bash = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """A terminal console on a live context, with completion, colours and its history."""

    async def work() -> int:
        _needs("jupyter_kernel_client", "console")
        sandbox, _, rest = place.partition("/")
        session, _, context = rest.partition("/")
        address = Address(url, token, sandbox, session or "default")
        async with address.open() as where:
            kernel = await _kernel(where, SHELL if bash else context)
        words = [*PYTHON, "-m", "api.konsole"]
        _become(words, {**_environment(address), KERNEL: kernel})
        return 0

    finish(work())


def _needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise NotReady(
            f"{module} is not installed beside cellshell: pip install 'cellshell[{extra}]'"
        )


async def _kernel(session: AsyncSandbox | AsyncSession, name: str) -> str:
    return await (session.kernel_id(name) if name else _python(session))


async def _python(session: AsyncSandbox | AsyncSession) -> str:
    """The kernel of the session's own Python context, which is there from now on."""
    try:
        context = await session.get_code_context("python")
    except ContextNotFound:
        context = await session.create_code_context("python", id="python")
    return await context.kernel_id()


async def _prepare(session: AsyncSandbox | AsyncSession, name: str, kernelspec: str) -> None:
    """A notebook in the workspace that opens on a kernel; one that is there keeps its cells."""
    path = f"/workspace/{name}"
    spec = {"name": kernelspec, "display_name": "This session", "language": "python"}
    try:
        notebook = json.loads(await session.read_file(path))
        metadata = notebook["metadata"]
        if metadata.get("kernelspec") == spec:
            return
        metadata["kernelspec"] = spec
    except FileNotFound:
        about = {"kernelspec": spec}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": []}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidRequest(f"expected {path} to be a notebook: move it away") from None
    await session.write_file(path, json.dumps(notebook, indent=1) + "\n")


def _lab_words(notebook: str, more: Sequence[str]) -> list[str]:
    """Without terminals, which would be on this machine: a session has its own."""
    manager = "notebooks.contents.SessionContents"
    return [
        *(*PYTHON, "-m", "jupyterlab"),
        f"--ServerApp.contents_manager_class={manager}",
        f"--ServerApp.root_dir={tempfile.gettempdir()}",
        "--ServerApp.terminals_enabled=False",
        f"--LabApp.default_url=/lab/tree/{notebook}",
        *more,
    ]


def _environment(address: Address) -> dict[str, str]:
    """Not in the words, which everybody on the machine can read."""
    told = {
        "JUPYTER_GATEWAY_URL": address.url,
        "CELLSHELL_URL": address.url,
        "CELLSHELL_SANDBOX": address.sandbox,
        "CELLSHELL_SESSION": address.session,
    }
    if address.token:
        told |= {"JUPYTER_GATEWAY_AUTH_TOKEN": address.token, "CELLSHELL_TOKEN": address.token}
    return {**os.environ, **told}


def _become(words: Sequence[str], env: dict[str, str]) -> None:
    sys.stderr.flush()
    os.execve(words[0], list(words), env)
