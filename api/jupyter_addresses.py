"""The kernel that a path of the Jupyter door names."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from interpreter.frontends import Frontends
from interpreter.known import Known


async def find_frontends(connection: HTTPConnection) -> Frontends:
    return Frontends(connection.app.state.interpreter)


async def find_kernel(connection: HTTPConnection) -> Known:
    """A paused sandbox goes on, unless it is only looked at."""
    frontends = await find_frontends(connection)
    known = frontends.find(connection.path_params["kernel"])
    if connection.scope.get("method") not in ("GET", "HEAD"):
        await known.sandbox.wake()
    return known


TheFrontends = Annotated[Frontends, Depends(find_frontends)]
TheKernel = Annotated[Known, Depends(find_kernel)]
