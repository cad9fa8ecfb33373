"""The command `cellshell`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from api.command_copy import cp
from api.command_doctor import doctor
from api.command_frontends import console, lab
from api.command_list import ls, rm
from api.command_notebook import WithPairs, export
from api.command_notebook import run as run_notebook
from api.command_replay import replay
from api.command_run import exec, run
from api.command_serve import gc, serve, setup
from api.command_shell import shell

PASSED_ON = {"allow_interspersed_args": False}
"""For `exec`: options after the command are the command's."""


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"cellshell {version('cellshell')}")
    except PackageNotFoundError:
        typer.echo("cellshell, not installed as a package")
    raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Say which, and exit."),
]


def _describe(_version: Version = False) -> None:
    """Run code and commands in isolated sandboxes, whose shell and kernels share everything."""


def make_app() -> typer.Typer:
    """The command with its subcommands."""
    app = typer.Typer(name="cellshell", no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_describe)
    app.command()(serve)
    app.command()(run)
    app.command(context_settings=PASSED_ON)(exec)
    app.command()(shell)
    app.add_typer(_notebook(), name="notebook")
    app.command()(export)
    app.command()(lab)
    app.command()(console)
    app.command()(replay)
    app.command()(ls)
    app.command()(rm)
    app.command()(cp)
    app.command()(doctor)
    app.command()(setup)
    app.command()(gc)
    return app


def _notebook() -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, help="Notebooks.")
    app.callback()(lambda: None)
    app.command("run", cls=WithPairs)(run_notebook)
    return app


def main() -> None:
    """The entry point."""
    make_app()(prog_name="cellshell")


if __name__ == "__main__":
    main()
