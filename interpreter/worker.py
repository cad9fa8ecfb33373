"""The service's end of the programs that work on files inside a box."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from interpreter.errors import NotReady
from interpreter.file_errors import os_refusal, refusal, said_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine

    from interpreter.box import Box
    from interpreter.box_process import BoxProcess

T = TypeVar("T")
During = Callable[[], AbstractContextManager[None]]
Message = dict[str, Any]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MAX_FRAME = 4 << 20
MAX_ENTRIES = 110_000
BUFFER = 256 * 1024
SILENCE = 60.0
GRACE = 20.0
CLOSING = 2.0
ENV = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
REPEATABLE = frozenset({"info", "list", "write", "beside", "inside", "discard"})
NONSENSE = "the program that works on the sandbox's files ended or made no sense: try again"
SILENT = f"the program that works on the sandbox's files was silent for {SILENCE:.0f} s"


class Guest:
    """One running guest program, at the other end of sockets of ours.

    The sockets are ours alone, so the program sees the end of the service, whatever ends it. What
    it says is not to be trusted: the box's code may have killed it or stopped it.
    """

    def __init__(self, process: BoxProcess, control: Stream, data: Stream) -> None:
        self.process = process
        self.reader, self.writer = data
        self._frames, self._control = control
        self._kill: asyncio.TimerHandle | None = None
        self.over: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        return self._control.is_closing() or self._frames.at_eof()

    def send(self, message: Message) -> None:
        data = json.dumps(message).encode()
        self._control.write(len(data).to_bytes(4, "big") + data)

    async def receive(self, *, silence: float | None = SILENCE) -> Message:
        """The next message that is more than a sign of life, which comes every few seconds."""
        while True:
            try:
                async with asyncio.timeout(silence):
                    message = await self._receive()
            except TimeoutError:
                self.kill()
                raise NotReady(SILENT) from None
            except (OSError, EOFError, ValueError, RecursionError) as error:
                self.close()
                raise NotReady(NONSENSE) from error
            if "beat" not in message:
                return message

    async def _receive(self) -> Message:
        size = int.from_bytes(await self._frames.readexactly(4), "big")
        if size > MAX_FRAME:
            raise ValueError(f"a frame of {size} bytes")
        message = json.loads(await self._frames.readexactly(size))
        if not isinstance(message, dict):
            raise ValueError("a frame that is no object")
        return message

    async def read(self) -> bytes:
        """A piece of what it sends on its data socket; empty at the end."""
        try:
            async with asyncio.timeout(SILENCE):
                return await self.reader.read(BUFFER)
        except TimeoutError:
            self.kill()
            raise NotReady(SILENT) from None
        except OSError as error:
            raise NotReady(NONSENSE) from error

    async def feed(self, chunks: AsyncIterable[bytes]) -> None:
        """Send all of it to its data socket, or as much as it wants to have."""
        async for chunk in chunks:
            if not await self._push(chunk):
                return
        with suppress(OSError):
            self.writer.write_eof()

    async def _push(self, chunk: bytes) -> bool:
        self.writer.write(chunk)
        try:
            async with asyncio.timeout(SILENCE):
                await self.writer.drain()
        except TimeoutError:
            self.kill()
            raise NotReady(SILENT) from None
        except OSError:
            return False
        return True

    def close(self) -> None:
        """It ends when it sees the socket closed; one that cannot see it is killed."""
        if not self._control.is_closing() and self.over and not self.over.done():
            self._kill = asyncio.get_running_loop().call_later(GRACE, self.kill)
        self._control.close()
        self.writer.close()

    def kill(self) -> None:
        self.close()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)

    async def follow(self) -> None:
        """Until it has ended, and init has forgotten it."""
        try:
            await self.process.wait()
            await self.process.release()
        finally:
            self.process.let_go()
            if self._kill:
                self._kill.cancel()


class Line:
    """Requests to one long-lived worker, answered in order."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._waiting: deque[asyncio.Future[Message]] = deque()

    async def run(self) -> None:
        """Hand each answer to who asked, until the worker is gone."""
        error = NotReady(NONSENSE)
        entries: list[object] = []
        try:
            while True:
                message = await self.guest.receive(silence=None)
                if "entries" in message:
                    _extend(entries, message)
                    continue
                if not self._waiting:
                    return
                future, answer = self._waiting.popleft(), message | {"entries": entries}
                entries = []
                if not future.done():
                    future.set_result(answer)
        except NotReady as ended:
            error = ended
        finally:
            self.guest.close()
            for future in self._waiting:
                if not future.done():
                    future.set_exception(error)

    def post(self, message: Message) -> asyncio.Future[Message]:
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.guest.send(message)
        return future

    async def ask(self, message: Message) -> Message:
        try:
            async with asyncio.timeout(SILENCE):
                return await self.post(message)
        except TimeoutError:
            self.guest.kill()
            raise NotReady(SILENT) from None


class Worker:
    """Works on the files of one sandbox: small requests in one process, long ones in their own."""

    def __init__(
        self,
        get_box: Callable[[], Awaitable[Box]],
        during: During = nullcontext,
    ) -> None:
        """`during` is entered while something goes on."""
        self._get_box = get_box
        self._during = during
        self._starting = asyncio.Lock()
        self._line: Line | None = None
        self._box: Box | None = None
        self._guests: set[Guest] = set()
        self._work: set[asyncio.Task[Any]] = set()
        self._upkeep: set[asyncio.Task[None]] = set()

    async def call(self, op: str, path: str, /, **arguments: Any) -> Message:
        """A small request; raises what stood in its way, said of `path`."""
        message = {"op": op, **arguments}
        try:
            answer = await (await self._connected()).ask(message)
        except NotReady:
            if op not in REPEATABLE:
                raise
            answer = await (await self._connected()).ask(message)
        return result(answer, path)

    async def call_long(self, op: str, path: str, /, **arguments: Any) -> Message:
        """The same in a process of its own, which ends with its caller."""
        box = await self._get_box()
        entries: list[object] = []
        async with self.running(box, "worker.py", *_where(box)) as guest:
            guest.send({"op": op, **arguments})
            while "entries" in (message := await guest.receive()):
                _extend(entries, message)
        return result(message | {"entries": entries}, path)

    async def tree(self, op: str, path: str, /, **arguments: Any) -> None:
        """One operation on a whole tree, in a process that ends with its caller."""
        box = await self._get_box()
        request = {"op": op, "journal": _journal(box), **arguments}
        during = nullcontext if op == "sweep" else self._during
        async with self.running(box, "tree.py", json.dumps(request), during=during) as guest:
            result(await guest.receive(), path)

    def post(self, op: str, **arguments: Any) -> None:
        """A small request whose answer nobody waits for."""
        if self._line and not self._line.guest.closed:
            self._line.post({"op": op, **arguments}).add_done_callback(_ignore)

    def own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that goes on when its caller does not, but not long beyond `close`."""
        return _keep(self._work, work)

    def host_pids(self) -> list[int]:
        """The guest programs, which have nothing of the sandbox's own in them."""
        return [guest.process.host_pid for guest in self._guests]

    async def settle(self) -> None:
        """Until the guest programs that were closed are over: they build nothing any more."""
        ending = [guest.over for guest in self._guests if guest.over and guest.closed]
        if ending:
            await asyncio.wait(ending)

    @asynccontextmanager
    async def running(
        self, box: Box, program: str, *arguments: str, during: During | None = None
    ) -> AsyncIterator[Guest]:
        """A guest program, closed at the end."""
        with (during or self._during)():
            guest = await self._begin(box, program, arguments)
            try:
                yield guest
            finally:
                guest.close()

    async def close(self) -> None:
        """Let what tidies up finish, then end every guest program and everything that goes on."""
        if self._work:
            await asyncio.wait(self._work, timeout=CLOSING)
        for end in (Guest.close, Guest.kill):
            for guest in list(self._guests):
                end(guest)
            if self._upkeep:
                await asyncio.wait(self._upkeep, timeout=CLOSING)
        for task in [*self._work, *self._upkeep]:
            task.cancel()

    async def _connected(self) -> Line:
        async with self._starting:
            box = await self._get_box()
            if self._line is None or self._line.guest.closed or self._box is not box:
                if self._line:
                    self._line.guest.close()
                self.own(self.tree("sweep", _journal(box)))
                guest = await self._begin(box, "worker.py", _where(box))
                self._line, self._box = Line(guest), box
                _keep(self._upkeep, self._line.run())
            return self._line

    async def _begin(self, box: Box, program: str, arguments: tuple[str, ...]) -> Guest:
        # Cancelled while it starts, it would run on unknown to anybody.
        task = self.own(self._start(box, program, arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_close)
            raise

    async def _start(self, box: Box, program: str, arguments: tuple[str, ...]) -> Guest:
        argv = [box.python, "-I", "-S", "-B", box.guest(program), *arguments]
        with ExitStack() as ours, ExitStack() as theirs:
            try:
                control, stdin = _pair(ours, theirs)
                data, stdout = _pair(ours, theirs)
                process = await box.spawn(argv, env=ENV, cwd="/", stdin=stdin, stdout=stdout)
            except OSError as error:
                raise os_refusal(error, program) from error
            guest = Guest(process, await _stream(control), await _stream(data))
            ours.pop_all()
        self._guests.add(guest)
        guest.over = _keep(self._upkeep, self._follow(guest))
        return guest

    async def _follow(self, guest: Guest) -> None:
        try:
            await guest.follow()
        finally:
            self._guests.discard(guest)


def result(answer: Message, path: str) -> Message:
    """What a guest program was asked for, or the error it met."""
    match answer:
        case {"ok": dict(found)}:
            return found | {"entries": answer.get("entries", [])}
        case {"errno": int(number)}:
            other = answer.get("path")
            raise refusal(number, other if isinstance(other, str) else path)
        case {"code": code, "message": message}:
            raise said_refusal(code, message, path)
    raise NotReady(NONSENSE)


def _extend(entries: list[object], message: Message) -> None:
    if not isinstance(message["entries"], list) or len(entries) > MAX_ENTRIES:
        raise NotReady(NONSENSE)
    entries += message["entries"]


def _journal(box: Box) -> str:
    return f"{box.paths.home}/.local/state/cellshell"


def _where(box: Box) -> tuple[str, ...]:
    return _journal(box), box.paths.workspace, box.paths.home, box.paths.run


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, int]:
    """Our end of a new connection, and the descriptor of the other."""
    near, far = socket.socketpair()
    ours.enter_context(near)
    theirs.enter_context(far)
    return near, far.fileno()


async def _stream(connection: socket.socket) -> Stream:
    return await asyncio.open_unix_connection(sock=connection, limit=BUFFER)


def _keep(tasks: set[asyncio.Task[T]], work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_ignore)
    return task


def _close(task: asyncio.Task[Guest]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _ignore(future: asyncio.Future[Any]) -> None:
    """An outcome nobody waits for is no error of the event loop."""
    if not future.cancelled():
        future.exception()
