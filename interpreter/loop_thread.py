"""An event loop in a thread of its own, for callers that block."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - so that its exit callback is there first
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from interpreter.errors import CellshellError

R = TypeVar("R")
T = TypeVar("T")
PATIENCE = 30.0
"""How long the end of the process waits for what the loop still has to close."""


class LoopThread:
    """Runs coroutines for other threads, which wait.

    It ends with `close`, when nobody refers to it any more, or with the process; the last thing
    it runs is `farewell`. The thread is not there any more in a process that `fork` made: a call
    there says so.
    """

    def __init__(self, farewell: Callable[[], Coroutine[Any, Any, None]]) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._ended: Future[None] = Future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(
            target=_serve,
            args=(started, self._ended, self._tasks, farewell),
            name="cellshell client",
            daemon=True,
        )
        self._thread.start()
        self._loop, stop = started.result()
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _end, self._pid, self._loop, stop, self._thread)
        _before_pools_close(self._end)

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def close(self) -> None:
        """Cancels what still runs, and ends; without effect the second time."""
        if self._end.alive:
            self._end()
            self._ended.result(0)

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result of a coroutine; interrupted, it is cancelled and its end awaited."""
        return self._wait(_Call(self._loop, self._tasks, work))

    def call(
        self,
        method: Callable[..., Coroutine[Any, Any, R]],
        *args: Any,
        **options: Any,
    ) -> R:
        """Calls a coroutine function; its callbacks `on_...` run in the calling thread."""
        call: _Call[R] = _Call(self._loop, self._tasks)
        call.work = method(*args, **call.relayed(options))
        return self._wait(call)

    def iterate(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """What an asynchronous generator yields; closed early, that one is closed too."""
        try:
            while True:
                try:
                    item = self.run(_next(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._dispose(source)

    def _wait(self, call: _Call[R]) -> R:
        try:
            self._check()
        except CellshellError:
            call.discard()
            raise
        return call.result()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise CellshellError(
                f"expected a call from process {self._pid}, which made this client; its thread "
                f"does not live in the forked process {os.getpid()}: make a new client there"
            )
        if self.closed:
            raise CellshellError("expected an open client, but this one was closed: make a new one")
        if threading.current_thread() is self._thread:
            raise CellshellError("a blocking call in the client's own thread would wait forever")

    def _dispose(self, source: AsyncGenerator[Any, None]) -> None:
        if self.closed or os.getpid() != self._pid:
            return
        if threading.current_thread() is self._thread:
            # The garbage collector came by here: nobody waits, the loop closes it.
            self._loop.call_soon(_Call(self._loop, self._tasks, source.aclose()).start)
        else:
            self.run(source.aclose())


class _Call(Generic[R]):
    """One coroutine on the loop, and what the waiting thread has to do for it meanwhile."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tasks: set[asyncio.Task[Any]],
        work: Coroutine[Any, Any, R] | None = None,
    ) -> None:
        self.work = work
        self._loop = loop
        self._tasks = tasks
        self._task: asyncio.Task[R] | None = None
        self._turns: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def relayed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, with callbacks replaced by ones that run in the waiting thread."""
        return {
            name: partial(self._relay, value)
            if name.startswith("on_") and value is not None
            else value
            for name, value in options.items()
        }

    def result(self) -> R:
        self._loop.call_soon_threadsafe(self.start)
        try:
            while (turn := self._turns.get()) is not None:
                turn()
        except BaseException:
            self._loop.call_soon_threadsafe(self._cancel)
            while self._turns.get() is not None:
                pass
            raise
        assert self._task is not None
        if self._task.cancelled():
            raise CellshellError("the client was closed while this call waited for its answer")
        return self._task.result()

    def start(self) -> None:
        assert self.work is not None
        self._task = self._loop.create_task(self.work)
        self._tasks.add(self._task)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[R]) -> None:
        self._tasks.discard(task)
        self._turns.put(None)

    def discard(self) -> None:
        if self.work is not None:
            self.work.close()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _relay(self, callback: Callable[[Any], object], value: Any) -> None:
        done: Future[None] = Future()
        self._turns.put(partial(_take_turn, callback, value, done))
        await asyncio.wrap_future(done)


def _take_turn(callback: Callable[[Any], object], value: Any, done: Future[None]) -> None:
    callback(value)
    done.set_result(None)


def _before_pools_close(callback: Callable[[], object]) -> None:
    """Calls back at the end of the process, while threads and thread pools still work.

    `atexit` is too late: Python has joined the threads of every pool by then, which would wait for
    ours. It calls these callbacks last in, first out: the pools' own is registered by their import.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    register(callback)


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)


def _serve(
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
    ended: Future[None],
    tasks: set[asyncio.Task[Any]],
    farewell: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await farewell()

    try:
        asyncio.run(main())
        ended.set_result(None)
    except BaseException as error:
        ended.set_exception(error)


def _end(
    pid: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread
) -> None:
    if os.getpid() != pid or not thread.is_alive():
        return
    loop.call_soon_threadsafe(stop.set)
    if threading.current_thread() is not thread:
        thread.join(PATIENCE)
