"""Interactive terminals of a session: each a bash on a pty of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import signal
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from interpreter import process_start, trees
from interpreter.descriptors import CHUNK, Bell, Reader, Writer, handing
from interpreter.errors import AtCapacity, InvalidRequest, ProcessExited, SessionDeleted
from interpreter.terminal_environment import TerminalEnvironment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from interpreter.box import Box
    from interpreter.box_process import BoxProcess
    from interpreter.process_start import Starter

KEPT_BYTES = 256 * 1024
MOST_TERMINALS = 32
MOST_CELLS = 1000
GRACE = 2.0
NAME = "terminal:"
"""Before session, id and directory: what init calls a terminal, for the next service to find."""
_KNOWN = re.compile(
    NAME + r"(?P<session>[\w.-]+):(?P<id>[\w.-]+):(?P<directory>[0-9a-f]{16})", re.ASCII
)
_DIRECTORY = "env/_terminals"
"""Below the run directory, where the box sees it read-only. No session's page is called that."""


class Tail:
    """The last bytes of a stream, each known by its place in the whole."""

    def __init__(self, kept_bytes: int) -> None:
        self._kept = kept_bytes
        self._bytes = bytearray()
        self._begin = 0

    def append(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) >= 2 * self._kept:
            self._drop(len(self._bytes) - self._kept)

    def start(self) -> int:
        """Where a new reader begins: with a whole line, when anything has been dropped."""
        self._drop(max(0, len(self._bytes) - self._kept))
        return self._whole_line()

    def read(self, position: int) -> tuple[int, bytes]:
        """What is there from `position` on, and the position after it. Who is late misses some."""
        if position < self._begin:
            position = self._whole_line()
        offset = position - self._begin
        data = bytes(self._bytes[offset : offset + CHUNK])
        return position + len(data), data

    def _drop(self, count: int) -> None:
        del self._bytes[:count]
        self._begin += count

    def _whole_line(self) -> int:
        return self._begin + (self._bytes.find(b"\n") + 1 if self._begin else 0)


class Terminal:
    """Lives on without anybody attached; `output` may be followed by many."""

    def __init__(
        self,
        id: str,
        box: Box,
        handle: BoxProcess,
        environment: TerminalEnvironment,
        on_end: Callable[[Terminal], None],
    ) -> None:
        assert handle.tty is not None
        self.id = id
        self.exit_code: int | None = None
        self._box = box
        self._handle = handle
        self._environment = environment
        self._on_end = on_end
        self._tail = Tail(KEPT_BYTES)
        self._bell = Bell()
        self._tty = handle.tty
        self._writer = Writer(os.dup(handle.tty))
        self._reader = Reader(handle.tty, handing(self._take))
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._closing: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """What is typed; waits while the programs in the terminal do not take it."""
        if self.exit_code is not None:
            raise self._over()
        try:
            await self._writer.write(data)
        except OSError:
            raise self._over() from None

    def resize(self, cols: int, rows: int) -> None:
        check_size(cols, rows)
        if self.exit_code is not None or self._reader.ended.done():
            raise self._over()
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    async def output(self) -> AsyncGenerator[bytes, None]:
        """The kept tail, then what comes, until the terminal ends.

        Nothing waits for a slow reader: one that is more than the tail behind misses some.
        """
        position = self._tail.start()
        while True:
            position, data = self._tail.read(position)
            if data:
                yield data
                await asyncio.sleep(0)
            elif self.exit_code is not None:
                return
            else:
                await self._bell.wait()

    async def close(self) -> None:
        """Hang up: SIGHUP to all that runs in it, two seconds, SIGKILL."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._hang_up())
        await asyncio.shield(self._closing)

    def detach(self) -> None:
        """Let go of it without ending it, for the next service to take up."""
        self._watching.cancel()
        if self._closing:
            self._closing.cancel()
        self._writer.close()
        self._reader.close()
        self._handle.let_go()
        self._environment.close()

    def _take(self, data: bytes) -> None:
        self._environment.catch_up()
        self._tail.append(data)
        self._bell.ring()

    async def _watch(self) -> None:
        code = await self._handle.wait()
        self._reader.drain()
        self._writer.close()
        self._reader.close()
        self._environment.remove()
        self.exit_code = 128 - code if code < 0 else code
        self._on_end(self)
        self._bell.ring()
        await self._handle.release()

    async def _hang_up(self) -> None:
        async def over() -> None:
            await self._handle.wait()

        with suppress(ConnectionError):
            await trees.end_tree(
                self._box, self._handle.pid, over, first=signal.SIGHUP, grace=GRACE
            )
        await asyncio.shield(self._watching)

    def _over(self) -> ProcessExited:
        return ProcessExited(f"terminal {self.id!r} has ended: open it again for a new one")


class Terminals:
    """Of one session, by id."""

    def __init__(self, get_box: Callable[[], Awaitable[Box]], session: Starter) -> None:
        self._get_box = get_box
        self._session = session
        self._terminals: dict[str, Terminal] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[Terminal]] = set()
        self._deleted = False

    def list(self) -> list[Terminal]:
        return list(self._terminals.values())

    async def open(self, id: str = "default", cols: int = 80, rows: int = 24) -> Terminal:
        """The one that runs, resized, or a new one in the session's environment."""
        check_size(cols, rows)
        if self._deleted:
            raise SessionDeleted(f"session {self._session.id!r} was deleted: create it again")
        task = asyncio.ensure_future(self._open(id, cols, rows))
        self._tasks.add(task)
        task.add_done_callback(self._opened)
        return await asyncio.shield(task)

    async def restore(self, box: Box, live: Mapping[str, BoxProcess]) -> None:
        """After the service was started again: `live` are the box's processes by init's names."""
        for name, handle in live.items():
            known = _KNOWN.fullmatch(name)  # init may have been taken over: no path from it
            if not known or known["session"] != self._session.id:
                continue
            id = known["id"]
            host = box.host_run / _DIRECTORY / known["directory"]
            environment = TerminalEnvironment(self._session.environment, host)
            try:
                environment.reopen()
            except (OSError, ValueError):
                environment.open()
            self._terminals[id] = Terminal(id, box, handle, environment, self._ended)

    async def end(self) -> None:
        """Hang up all: the session is being deleted."""
        self._deleted = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(terminal.close() for terminal in self.list()))

    def close(self) -> None:
        """Let go of all without ending any: before the connection to the box is closed."""
        for task in self._tasks:
            task.cancel()
        for terminal in self._terminals.values():
            terminal.detach()
        self._terminals.clear()

    async def _open(self, id: str, cols: int, rows: int) -> Terminal:
        async with self._opening:
            if running := self._terminals.get(id):
                running.resize(cols, rows)
                return running
            if len(self._terminals) >= MOST_TERMINALS:
                raise AtCapacity(f"{MOST_TERMINALS} terminals are open in this session: close some")
            terminal = self._terminals[id] = await self._start(id, cols, rows)
            return terminal

    async def _start(self, id: str, cols: int, rows: int) -> Terminal:
        box = await self._get_box()
        session = self._session
        cwd = await process_start.directory(box, session, None)
        # Its own for each: a session of the same id may be deleted and come back meanwhile.
        directory = secrets.token_hex(8)
        host = box.host_run / _DIRECTORY / directory
        environment = TerminalEnvironment(session.environment, host)
        environment.open()
        argv = ["bash", "--rcfile", box.guest("terminal_prompt.bash"), "-i"]
        own = {
            "TERM": "xterm-256color",
            "CELLSHELL_TERMINAL": f"{box.paths.run}/{_DIRECTORY}/{directory}",
        }
        env = process_start.environment(session, own, cwd)
        name = f"{NAME}{session.id}:{id}:{directory}"
        try:
            handle = await process_start.spawn(box, argv, env, cwd, name, tty=(cols, rows))
        except BaseException:
            environment.remove()
            raise
        return Terminal(id, box, handle, environment, self._ended)

    def _ended(self, terminal: Terminal) -> None:
        if self._terminals.get(terminal.id) is terminal:
            del self._terminals[terminal.id]

    def _opened(self, task: asyncio.Task[Terminal]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone


def check_size(cols: int, rows: int) -> None:
    for name, size in (("cols", cols), ("rows", rows)):
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_CELLS:
            raise InvalidRequest(f"expected `{name}` from 1 to {MOST_CELLS}, got {size!r}")
