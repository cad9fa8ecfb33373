"""Ports: what listens in a sandbox."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.addresses import SANDBOX, TheSandbox
from api.answers import answer
from api.documentation import errors
from api.port_tickets import Tickets
from api.routes import noun
from interpreter.errors import NotReady, SandboxNotFound
from interpreter.models import Port

router = noun("ports", SANDBOX + "/ports")


@router.get(
    "",
    response_model=list[Port],
    responses=errors(SandboxNotFound, NotReady),
    summary="List listening ports",
)
async def list_ports(request: Request, sandbox: TheSandbox) -> Response:
    """TCP ports that something in the sandbox listens on, by number."""
    tickets: Tickets = request.app.state.tickets
    return answer(
        [
            Port(
                port=port.port,
                address=port.address,
                pid=port.pid,
                url=tickets.link(sandbox.id, port.port),
            )
            for port in await sandbox.ports()
        ]
    )
