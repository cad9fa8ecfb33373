"""Callers, who may go away before they have their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Receive

T = TypeVar("T")
CLIENT_GONE = 499


class CallerGone(Exception):
    """The client closed its connection before it had its answer."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the caller goes away (`CallerGone`).

    For after the request was read: `receive` has nothing more to tell then.
    """
    task = asyncio.ensure_future(work)
    away = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, away}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerGone
        return task.result()
    finally:
        task.cancel()
        away.cancel()
        await asyncio.gather(task, away, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def install(app: FastAPI) -> None:
    """Take callers that went away for what they are: no error of anybody."""
    app.add_exception_handler(CallerGone, _on_gone)
    app.add_exception_handler(ClientDisconnect, _on_gone)


async def _on_gone(request: Request, error: Exception) -> Response:
    # Nobody reads this answer; its status is for the metrics.
    return Response(status_code=CLIENT_GONE)
