"""One background process: its output, its input, its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from interpreter import process_waits, trees
from interpreter.descriptors import Reader, Writer
from interpreter.errors import (
    InvalidRequest,
    ProcessExited,
    ServiceStopping,
    StdinClosed,
    WaitTimeout,
)
from interpreter.events import Event, now
from interpreter.logs import STREAMS, ProcessLog, Stream, StreamText
from interpreter.models import Logs, Notice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from interpreter.box import Box
    from interpreter.box_process import BoxProcess
    from interpreter.models import ProcessInfo, WaitFor, WaitResult

GRACE = 5.0
KILLED = 128 + signal.SIGKILL
Struck = Callable[[], list[Notice]]
END_DELAY = 0.2
STDIN_PATIENCE = 30.0


class Process:
    """A process of a box and its log. It outlives the session that started it."""

    def __init__(self, info: ProcessInfo, log: ProcessLog, struck: Struck = list) -> None:
        """What has ended; `run` makes it live. `struck` tells what limits have struck just now."""
        self._struck = struck
        self._info = info
        self._log = log
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if info.status != "running":
            log.finish()
            self._over.set_result(None)
        self.box: Box | None = None
        self._handle: BoxProcess | None = None
        self._script: str | None = None
        self._readers: list[Reader] = []
        self._stdin: Writer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._killing: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def running(self) -> bool:
        return self._info.status == "running"

    @property
    def host_pid(self) -> int:
        """As the machine counts; -1 for one that has never run under this service."""
        return self._handle.host_pid if self._handle else -1

    def info(self) -> ProcessInfo:
        return self._info.model_copy()

    @property
    def settled(self) -> bool:
        """It has ended, and so has all that could write to its log."""
        return not self.running and all(reader.ended.done() for reader in self._readers)

    def run(
        self,
        box: Box,
        handle: BoxProcess,
        on_end: Callable[[Process], None],
        script: str | None = None,
    ) -> None:
        """Take over the process and its descriptors; `on_end` is called when it ends and settles.

        `script` is a file in the box that nobody needs any more then.
        """
        self.box, self._handle, self._script = box, handle, script
        self._info.pid = handle.pid
        for stream, fd in zip(STREAMS, (handle.stdout, handle.stderr), strict=True):
            if fd is not None:
                self._readers.append(Reader(fd, partial(self._log.take, stream)))
        self._stdin = Writer(handle.stdin) if handle.stdin is not None else None
        self._own(self._watch(handle, on_end))

    def lose(self) -> None:
        """Its box ended while nobody looked."""
        self._ended(-signal.SIGKILL)

    def logs(self, stream: Stream | None = None, tail: int | None = None) -> Logs:
        """What is kept of the output; `tail` counts lines of each stream."""
        if stream not in (None, *STREAMS):
            raise InvalidRequest(f"stream must be stdout or stderr, got {stream!r}")
        if tail is not None and tail < 0:
            raise InvalidRequest(f"tail counts lines: expected 0 or more, got {tail}")
        wanted = STREAMS if stream is None else (stream,)
        return Logs(**{name: self._log.text(name, tail) for name in wanted})

    async def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """`stdout {data}` and `stderr {data}` from the first byte on, then `exit {process}`.

        `exit` follows what was written until the process ended; what its children write later is
        in the log. An event's number is how many bytes had been written with it, which stays the
        same however they are cut into events the next time; `after` such a number, the rest comes.
        """
        number = 0
        texts = {stream: StreamText() for stream in STREAMS}
        async with aclosing(self._log.follow()) as pieces:
            async for piece in pieces:
                for part in piece.split(after - number):
                    number += part.omitted + len(part.data)
                    text = texts[part.stream]
                    data = text.gap(part.omitted) + text.feed(part.data)
                    if data and number > after:
                        yield Event(number, part.stream, {"data": data})
        for stream, text in texts.items():
            if (data := text.end()) and (number := number + 1) > after:
                yield Event(number, stream, {"data": data})
        await self.wait()
        yield Event(number + 1, "exit", {"process": self._info.model_dump()})

    async def wait(self) -> None:
        """Until the process has ended and what it wrote is in the log."""
        await asyncio.shield(self._over)

    async def wait_for(self, request: WaitFor) -> WaitResult:
        """Until what `request` names has come. Raises WaitTimeout, ProcessExited."""
        return await process_waits.wait_for(self, self._log, request)

    async def write(self, data: bytes) -> None:
        """To stdin, whole; waits while the process does not read, though not for ever."""
        stdin = self._open_stdin()
        try:
            async with asyncio.timeout(STDIN_PATIENCE):
                await stdin.write(data)
        except TimeoutError:
            raise self._not_reading() from None
        except BrokenPipeError:
            # What ends closes its descriptors first, and is seen to have ended a moment later.
            with suppress(TimeoutError):
                async with asyncio.timeout(END_DELAY):
                    await self.wait()
            self._open_stdin()
            raise StdinClosed(
                f"process {self.id!r} has closed its stdin: nothing reads what is written there"
            ) from None

    async def close_stdin(self) -> None:
        """The process reads end of file after what was written."""
        try:
            async with asyncio.timeout(STDIN_PATIENCE):
                await self._open_stdin().finish()
        except TimeoutError:
            raise self._not_reading() from None
        if self._handle:
            await self._handle.release("stdin")

    async def signal(self, name: str) -> None:
        """To the process and all its descendants, as a terminal's Ctrl-C reaches a whole job."""
        signum = _number(name)
        box = self._live_box()
        with suppress(ConnectionError):
            if await box.kill_tree([self._info.pid], signum):
                return
        await self.wait()
        raise self._exited()

    async def kill(self) -> ProcessInfo:
        """SIGTERM to the tree, five seconds, SIGKILL. One that has ended stays as it is."""
        if self.running and self.box:
            if self._killing is None:
                self._killing = self._own(self._end(self.box))
            await asyncio.wait({self._killing})
            if not self._killing.cancelled():  # one that has ended may be forgotten meanwhile
                self._killing.result()
            await self.wait()
        return self.info()

    def close(self) -> None:
        """Let go of it without ending it."""
        for task in self._tasks:
            task.cancel()
        for reader in self._readers:
            reader.close()
        if self._stdin:
            self._stdin.close()
        if self._handle:
            self._handle.let_go()
        self._log.close()
        if not self._over.done():
            self._over.set_exception(ServiceStopping())
            self._over.exception()  # there may be nobody to take it

    def _own(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self, handle: BoxProcess, on_end: Callable[[Process], None]) -> None:
        code = await handle.wait()
        for reader in self._readers:
            reader.drain()
        self._ended(code)
        on_end(self)
        if self._stdin:
            self._stdin.close()
        if self.box and self._script:
            with suppress(OSError):
                await self.box.unlink(self._script)
        for reader in self._readers:
            await asyncio.shield(reader.ended)
        await handle.release()
        self._log.close()
        on_end(self)

    def _ended(self, code: int) -> None:
        self._info.status = "killed" if code < 0 else "exited"
        self._info.exit_code = 128 - code if code < 0 else code
        self._info.signal = signal_name(-code) if code < 0 else None
        self._info.ended_at = now()
        if self._info.exit_code == KILLED and (struck := self._struck()):
            self._info.reason = struck[0].message
        self._log.finish()
        self._over.set_result(None)

    async def _end(self, box: Box) -> None:
        async def over() -> None:
            for future in (self._over, *(reader.ended for reader in self._readers)):
                await asyncio.shield(future)

        with suppress(ConnectionError):
            await trees.end_tree(box, self._info.pid, over, grace=GRACE)

    def _not_reading(self) -> WaitTimeout:
        return WaitTimeout(
            f"process {self.id!r} did not read its stdin for {STDIN_PATIENCE:g} seconds: "
            "a part of what was sent may be in the pipe"
        )

    def _open_stdin(self) -> Writer:
        if not self.running:
            raise self._exited()
        if self._stdin is None or self._stdin.closed:
            raise StdinClosed(f"stdin of process {self.id!r} is closed: it takes no more input")
        return self._stdin

    def _live_box(self) -> Box:
        if not self.running or self.box is None:
            raise self._exited()
        return self.box

    def _exited(self) -> ProcessExited:
        return ProcessExited(
            f"process {self.id!r} has ended with exit code {self._info.exit_code}: start a new one",
            exit_code=self._info.exit_code,
        )


def _number(name: str) -> int:
    try:
        return signal.Signals[name]
    except KeyError:
        raise InvalidRequest(
            f"expected a signal of Linux such as SIGINT, SIGTERM or SIGUSR1, got {name!r}"
        ) from None


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
