"""The way out of a sandbox: what it asked for, and what was decided."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from api.addresses import SANDBOX, TheSandbox
from api.answers import answer
from api.documentation import errors
from api.routes import noun
from interpreter.errors import SandboxNotFound
from interpreter.network_log import KEPT, NetworkDecision

router = noun("network", SANDBOX + "/network")


@router.get(
    "/log",
    response_model=list[NetworkDecision],
    responses=errors(SandboxNotFound),
    summary="List network decisions",
)
async def list_network_decisions(
    sandbox: TheSandbox,
    after: Annotated[
        int, Query(ge=0, lt=10**18, description="Only those with a higher number.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=KEPT, description="So many at most.")] = KEPT,
) -> Response:
    """The last 1,000 requests of the sandbox to hosts outside, each allowed or denied, oldest
    first. They are kept on disk as long as there is the sandbox; an `after` beyond the newest, as
    a power failure may leave one, lists all."""
    return answer(sandbox.network_log.after(after, limit))
