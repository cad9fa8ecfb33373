"""`cellshell serve` and `cellshell setup`."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import pwd
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from api.command_connection import finish, say
from api.listening import bind, is_loopback, refuse_exposure, refuse_unconfined
from interpreter.errors import InvalidRequest
from interpreter.models import Isolation
from interpreter.settings import Settings

if TYPE_CHECKING:
    from api.serving import Server

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="0 picks a free one. [default: 8000]")]
ServiceToken = Annotated[
    str | None, typer.Option(help="Asked for in every request; better set as CELLSHELL_TOKEN.")
]
Tier = Annotated[
    str | None, typer.Option("--isolation", help="auto, bwrap, process or none. [default: auto]")
]
LeastTier = Annotated[
    str | None,
    typer.Option("--isolation-minimum", help="Refuse to start with a weaker one. [default: none]"),
]
OnStop = Annotated[
    str | None,
    typer.Option("--on-stop", help="keep: sandboxes run on; destroy: they end. [default: keep]"),
]
Everything = Annotated[
    bool, typer.Option("--all", help="End all boxes; files, environments and records stay.")
]
PortsDomain = Annotated[
    str | None, typer.Option(help="Domain below which browsers find each port at its own name.")
]
Home = Annotated[Path | None, typer.Option(help="Where sandboxes and their records are kept.")]


def serve(
    host: Host = None,
    port: Port = None,
    token: ServiceToken = None,
    isolation: Tier = None,
    isolation_minimum: LeastTier = None,
    home: Home = None,
    on_stop: OnStop = None,
    ports_domain: PortsDomain = None,
) -> None:
    """Start the service. Settings also come from CELLSHELL_*, .env and cellshell.toml."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "token": token,
        "isolation": isolation,
        "home": home,
    }
    given |= {"on_stop": on_stop, "isolation_minimum": isolation_minimum}
    given |= {"ports_domain": ports_domain}
    finish(_serve(given), loop_factory=_loop_factory())


def setup(home: Home = None) -> None:
    """Make the environment that Python kernels run in; quick when it is there."""

    async def work() -> None:
        from interpreter.python_environment import ensure

        path = await ensure(read_settings({"home": home}), say)
        say(f"the kernel environment is at {path}")

    finish(work())


def gc(home: Home = None, everything: Everything = False) -> None:
    """Clean up after a service that will not come back: end boxes beyond adoption, remove their
    files."""

    async def work() -> None:
        from interpreter.interpreter import Interpreter

        on_stop = "destroy" if everything else "keep"
        settings = read_settings({"home": home, "on_stop": on_stop})
        async with Interpreter(settings) as interpreter:
            boxes = interpreter.boxes()
            say(f"removed what was left of {interpreter.swept} boxes and sandboxes")
        if boxes:
            say(_fate(settings, boxes))

    finish(work())


def read_settings(given: dict[str, Any]) -> Settings:
    """The settings, with what was given on the command line; errors name the one at fault."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"setting {where}: {first['msg']}") from None
    except ValueError as error:
        raise InvalidRequest(f"settings cannot be read: {error}") from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's, on the Pythons that it is made for."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    uvloop = importlib.import_module("uvloop")
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(given: dict[str, Any]) -> None:
    settings = read_settings(given)
    # A third of a second of imports, which the client's commands do without.
    from api.serving import running
    from interpreter.python_environment import ensure

    with bind(settings) as listener:
        refuse_exposure(settings, listener)
        await ensure(settings, say)
        async with running(settings) as (server, interpreter):
            isolation = interpreter.health().isolation
            refuse_unconfined(settings, listener, isolation)
            listener.listen(2048)
            _announce(settings, listener, isolation)
            await _serve_until_told(server, listener)
            boxes = interpreter.boxes()
    say(f"stopped; {_fate(settings, boxes)}")


def _fate(settings: Settings, boxes: int) -> str:
    """What becomes of sandboxes whose boxes run."""
    count = f"{boxes} sandbox{'' if boxes == 1 else 'es'}"
    if settings.on_stop == "destroy":
        return f"{count} ended; files and environments are kept"
    return f"{count} left running: the next `cellshell serve` takes them up"


async def _serve_until_told(server: Server, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # One that is ignored stays so: that is what nohup asks for.
    heeded = [each for each in ENDINGS if signal.getsignal(each) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, _end, server)
    try:
        await server.serve([listener])
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _end(server: Server) -> None:
    server.force_exit = server.should_exit
    server.should_exit = True


def _announce(settings: Settings, listener: socket.socket, isolation: Isolation) -> None:
    host, port, *_ = listener.getsockname()
    shown = f"[{host}]" if ":" in host else host
    say(f"listening on http://{shown}:{port} (API: /docs, data: {settings.home})")
    say(f"isolation: {isolation.tier} ({isolation.reason})")
    if isolation.tier == "none":
        say(f"WARNING: {_reach()}")
    if os.getpid() == 1:
        say("WARNING: this is pid 1 of a container: its end is the end of every sandbox")
    if settings.token is None:
        say("no token: every program and person on this machine may use it, nobody else")
    elif not is_loopback(listener):
        say("WARNING: HTTP is not encrypted; put a TLS proxy in front where others can listen")


def _reach() -> str:
    """What code can do where there are no walls."""
    try:
        account = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        account = f"user {os.geteuid()}"
    return (
        f"code is NOT confined: it runs as {account}, and can read and change that "
        "account's files, see its processes, use the network and every service of this machine"
    )
