"""Streams, fitted to those who follow them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from interpreter.events import Event
    from interpreter.execution import Execution

T = TypeVar("T")


async def following(execution: Execution, after: int) -> AsyncGenerator[Event, None]:
    """The events after a number; who has them all gets the terminal one again."""
    last: Event | None = None
    async with closing(execution.events(after)) as events:
        async for last in events:
            yield last
    if last is not None or after == 0:
        return
    async with closing(execution.events(0)) as events:
        async for event in events:
            last = event
    if last is not None:
        yield last


async def opened(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """`items` once the first has come, so that what fails at the start is a plain answer."""
    try:
        first = [await anext(items)]
    except StopAsyncIteration:
        first = []
    return _joined(first, items)


async def _joined(first: list[T], rest: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    async with closing(rest):
        for item in first:
            yield item
        async for item in rest:
            yield item


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """`items`, made to give back what they hold when they are not needed any more."""
    try:
        yield items
    finally:
        await close(items)


async def close(items: AsyncIterator[Any]) -> None:
    """End an iterator early."""
    if isinstance(items, AsyncGenerator):
        await items.aclose()
