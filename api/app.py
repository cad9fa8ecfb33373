"""The app: every door, around one interpreter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api import (
    callers,
    contexts,
    documentation,
    executions,
    files,
    git,
    jupyter,
    jupyter_channels,
    network,
    notebooks,
    port_proxy,
    ports,
    problems,
    processes,
    running,
    sandboxes,
    service,
    sessions,
    terminals,
)
from api.auth import Guard
from api.failures import Failures
from api.metrics import Meter, Metrics, Population
from api.port_hosts import PortHosts
from api.port_tickets import Tickets
from api.routes import flat
from interpreter.interpreter import Interpreter
from interpreter.ports_domain import PortsDomain
from interpreter.settings import Settings

NOUNS = (
    running,
    executions,
    contexts,
    notebooks,
    processes,
    files,
    git,
    terminals,
    sandboxes,
    sessions,
    network,
    ports,
    port_proxy,
    service,
    jupyter,
    jupyter_channels,
)
EXPOSED = ["Location", "Retry-After", "ETag", "Content-Range", "Content-Disposition"]


def create_app(settings: Settings, interpreter: Interpreter | None = None) -> FastAPI:
    """An app around this interpreter, which is running, or around one that it starts itself."""
    app = FastAPI(
        title="Cellshell",
        summary=documentation.SUMMARY,
        description=documentation.DESCRIPTION,
        openapi_tags=documentation.TAGS,
        lifespan=_lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.interpreter = interpreter
    app.state.metrics = Metrics()
    app.state.jupyter_names = {}
    domain = PortsDomain.parse(settings.ports_domain) if settings.ports_domain else None
    app.state.tickets = Tickets(settings.token, domain)
    app.router.routes.extend(flat([module.router for module in NOUNS]))
    app.openapi = partial(documentation.document, app)  # type: ignore[method-assign]
    problems.install(app)
    callers.install(app)
    _wrap(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        if app.state.interpreter is None:
            own = Interpreter(app.state.settings)
            app.state.interpreter = await stack.enter_async_context(own)
        population = Population(app.state.interpreter)
        app.state.metrics.registry.register(population)
        try:
            yield
        finally:
            app.state.metrics.registry.unregister(population)


def _wrap(app: FastAPI, settings: Settings) -> None:
    """The first one added is the innermost."""
    token, origins = settings.token, settings.allowed_origins
    app.add_middleware(Guard, token=token, tickets=app.state.tickets, allowed_origins=origins)
    if origins:
        options: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"]}
        app.add_middleware(CORSMiddleware, allow_origins=origins, expose_headers=EXPOSED, **options)
    tickets: Tickets = app.state.tickets
    if tickets.domain:
        app.add_middleware(PortHosts, domain=tickets.domain, tickets=tickets, token=token)
    app.add_middleware(Failures)
    app.add_middleware(Meter, metrics=app.state.metrics)
