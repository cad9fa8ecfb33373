"""The files of a sandbox, as one of its sessions names them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from interpreter.errors import CellshellError, InvalidRequest, IsADirectory, NotAFile
from interpreter.events import Event
from interpreter.file_errors import os_refusal, show, speaking_of
from interpreter.file_info import OpenFile, describe, describe_open
from interpreter.filling import fill
from interpreter.worker import Guest, Message, Worker, result

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Coroutine,
    )

    from interpreter.box import Box
    from interpreter.models import FileInfo

MAX_PATH = 4095
NEW_MODE = 0o644
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHANGES = frozenset({"started", "created", "modified", "deleted", "moved", "overflow"})

__all__ = ["Files", "OpenFile"]


class Files:
    """Every operation resolves its paths and opens its files inside the box.

    `resolve` makes a path of the session absolute. `worker` may be shared by the sessions of a
    sandbox; without one, this has its own, which `close` ends.
    """

    def __init__(
        self,
        get_box: Callable[[], Awaitable[Box]],
        resolve: Callable[[str], str],
        worker: Worker | None = None,
        note: Callable[..., None] = lambda verb, **facts: None,
    ) -> None:
        """`note` is told what was done, and with what."""
        self._note = note
        self._get_box = get_box
        self._resolve = resolve
        self._shared = worker is not None
        self._worker = worker or Worker(get_box)

    async def close(self) -> None:
        if not self._shared:
            await self._worker.close()

    async def info(self, path: str) -> FileInfo:
        """Facts about the path itself: a symlink is not followed."""
        absolute = self._absolute(path)
        return describe(await self._worker.call("info", absolute, path=absolute))

    async def list(
        self, path: str | None = None, recursive: bool = False, hidden: bool = False
    ) -> list[FileInfo]:
        """Entries of a directory by name, each directory followed by what is in it."""
        absolute = self._absolute("." if path is None else path)
        arguments = {"path": absolute, "recursive": recursive, "hidden": hidden}
        answer = await self._worker.call("list", absolute, **arguments, long=False)
        if answer.get("long"):
            answer = await self._worker.call_long("list", absolute, **arguments, long=True)
        infos = []
        for number, entry in enumerate(answer["entries"]):
            infos.append(describe(entry))
            if number % 1000 == 999:
                await asyncio.sleep(0)
        return infos

    async def read(self, path: str) -> OpenFile:
        """A regular file, open; the caller closes it."""
        absolute = self._absolute(path)
        fd = await self._open(absolute, READ, absolute)
        try:
            return describe_open(absolute, fd, _regular(fd, absolute))
        except BaseException:
            os.close(fd)
            raise

    async def write(
        self,
        path: str,
        chunks: AsyncIterable[bytes],
        mode: str | int | None = None,
        append: bool = False,
    ) -> FileInfo:
        """All or nothing, unless it appends. Parents are made, a symlink is written through."""
        absolute, bits = self._absolute(path), _bits(mode)
        place = await self._prepare("write", absolute, path=absolute, append=append)
        try:
            await self._fill(place, absolute, chunks)
            if bits is None and not (append and place.get("mode") is not None):
                bits = place.get("mode") or NEW_MODE
            commit = {**_place(place), "mode": bits, "overwrite": True}
            info = describe(await self._worker.call("commit", absolute, **commit, path=absolute))
        except BaseException as error:
            discard = {"temporary": place.get("temporary"), "made": place.get("made", [])}
            await self._tidy(error, self._worker.call("discard", absolute, **discard))
            if isinstance(error, CellshellError):
                raise speaking_of(absolute, error, str(place.get("temporary"))) from None
            raise
        self._note("append" if append else "write", path=info.path, size=info.size)
        return info

    async def delete(self, path: str, recursive: bool = False) -> None:
        """A symlink is deleted itself. A tree is gone at once, whether or not the caller stays."""
        absolute = self._absolute(path)
        await self._to_the_end(self._delete(absolute, recursive))
        self._note("delete", path=show(absolute))

    async def mkdir(self, path: str, recursive: bool = True) -> FileInfo:
        absolute = self._absolute(path)
        arguments = {"path": absolute, "recursive": recursive}
        info = describe(await self._worker.call("mkdir", absolute, **arguments))
        self._note("mkdir", path=info.path)
        return info

    async def move(self, source: str, destination: str, overwrite: bool = False) -> FileInfo:
        """`destination` is the new name, of a directory too; nothing is put *into* it."""
        pair = self._pair(source, destination, overwrite)
        answer = await self._worker.call("move", pair["source"], **pair)
        if answer.get("elsewhere"):
            info = await self._copy(pair)
            await self._to_the_end(self._delete(pair["source"], True))
        else:
            info = describe(answer)
        self._note("move", path=show(pair["source"]), destination=info.path)
        return info

    async def copy(self, source: str, destination: str, overwrite: bool = False) -> FileInfo:
        """A file or a tree, symlinks as symlinks; it appears at `destination` when it is whole."""
        pair = self._pair(source, destination, overwrite)
        info = await self._copy(pair)
        self._note("copy", path=show(pair["source"]), destination=info.path)
        return info

    async def watch(self, path: str, recursive: bool = False) -> AsyncGenerator[Event, None]:
        """What changes, from the event `started` on; ends when `path` itself is gone."""
        absolute, number = self._absolute(path), 0
        request = json.dumps({"path": absolute, "recursive": recursive})
        async with self._worker.running(await self._get_box(), "watch.py", request) as guest:
            message = await guest.receive()
            while message.get("event") in CHANGES:
                number += 1
                yield Event(number, message["event"], _fields(message))
                message = await guest.receive(silence=None)
            result(message, absolute)

    async def archive(self, path: str) -> AsyncGenerator[bytes, None]:
        """A directory as a tar stream."""
        absolute = self._absolute(path)
        request = json.dumps({"op": "pack", "path": absolute})
        async with self._worker.running(await self._get_box(), "archive.py", request) as guest:
            await _started(guest, absolute)
            while data := await guest.read():
                yield data
            result(await guest.receive(), absolute)

    async def extract(self, path: str, chunks: AsyncIterable[bytes]) -> FileInfo:
        """A tar stream into a directory, which is made; one unsafe member refuses the whole."""
        absolute = self._absolute(path)
        place = await self._prepare("inside", absolute, path=absolute)
        try:
            await self._unpack(place, absolute, chunks)
        except BaseException as error:
            await self._tidy(error, self._clear(place, absolute))
            raise
        await self._to_the_end(self._merge(place, absolute))
        info = describe(await self._worker.call("info", absolute, path=absolute))
        self._note("extract", path=info.path)
        return info

    # What they are made of

    def _absolute(self, path: str) -> str:
        if "\0" in path or not path:
            raise InvalidRequest(
                f"expected a path, which has no NUL and is not empty, got {path!a}"
            )
        absolute = self._resolve(path)
        try:
            length = len(os.fsencode(absolute))
        except UnicodeEncodeError:
            raise InvalidRequest(f"expected a path in Unicode, got {path!a}") from None
        if not absolute.startswith("/") or length > MAX_PATH:
            raise InvalidRequest(f"a path has {MAX_PATH} bytes at most, this one has {length}")
        # `..` stays: what it means depends on the links before it.
        return "/" + "/".join(part for part in absolute.split("/") if part not in ("", "."))

    def _pair(self, source: str, destination: str, overwrite: bool) -> Message:
        return {
            "source": self._absolute(source),
            "destination": self._absolute(destination),
            "overwrite": overwrite,
        }

    async def _open(self, path: str, flags: int, shown: str) -> int:
        box = await self._get_box()
        opening = self._worker.own(box.open(path, flags, 0o600))
        try:
            return await asyncio.shield(opening)
        except OSError as error:
            raise os_refusal(error, shown) from error
        except asyncio.CancelledError:
            # It may make a file yet, and what tidies up has to come after that.
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                os.close(opening.result())
            raise

    async def _fill(self, place: Message, path: str, chunks: AsyncIterable[bytes]) -> None:
        temporary = place.get("temporary")
        flags = CREATE if temporary else APPEND
        fd = await self._open(str(temporary or place.get("target")), flags, path)
        try:
            _regular(fd, path)
            _hold(fd)
            await fill(fd, chunks)
        except OSError as error:
            raise os_refusal(error, path) from error
        finally:
            os.close(fd)

    async def _delete(self, path: str, recursive: bool) -> None:
        answer = await self._worker.call("delete", path, path=path, recursive=recursive)
        if not answer.get("temporary"):
            return
        try:
            await self._worker.tree("discard", path, path=answer["temporary"])
        except CellshellError:
            back = {**_place(answer), "overwrite": False, "path": path}
            await self._worker.call("commit", path, **back)
            raise

    async def _copy(self, pair: Message) -> FileInfo:
        source, destination = pair["source"], pair["destination"]
        place = await self._prepare("beside", destination, **pair)
        if place.get("same"):
            return describe(place)
        temporary = str(place.get("temporary"))
        try:
            await self._worker.tree("copy", source, source=source, target=temporary)
            commit = {**_place(place), "overwrite": pair["overwrite"], "path": destination}
            return describe(await self._worker.call("commit", destination, **commit))
        except BaseException as error:
            await self._tidy(error, self._clear(place, source))
            if isinstance(error, CellshellError):
                raise speaking_of(destination, error, temporary) from None
            raise

    async def _unpack(self, place: Message, path: str, chunks: AsyncIterable[bytes]) -> None:
        staged = str(place.get("temporary"))
        fd = await self._open(staged, DIRECTORY, path)
        try:
            _hold(fd)
            request = json.dumps({"op": "unpack", "path": staged})
            async with self._worker.running(await self._get_box(), "archive.py", request) as guest:
                await _started(guest, path)
                await guest.feed(chunks)
                result(await guest.receive(), path)
        finally:
            os.close(fd)

    async def _merge(self, place: Message, path: str) -> None:
        try:
            await self._worker.tree("merge", path, source=str(place["temporary"]), target=path)
        except CellshellError:
            await self._clear(place, path)
            raise
        await self._clear({**place, "made": []}, path)

    async def _prepare(self, op: str, path: str, /, **arguments: Any) -> Message:
        """A place to build something in, taken back when the caller left before it was known."""
        task = self._worker.own(self._worker.call(op, path, **arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._worker.own(self._abandon(task, path))
            raise

    async def _abandon(self, prepared: asyncio.Task[Message], path: str) -> None:
        await self._clear(await prepared, path)

    async def _clear(self, place: Message, path: str) -> None:
        if place.get("temporary"):
            await self._worker.settle()
            await self._worker.tree("discard", path, path=str(place["temporary"]))
        await self._worker.call("discard", path, temporary=None, made=place.get("made", []))

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Not to be stopped halfway by a caller who goes away."""
        await asyncio.shield(self._worker.own(work))

    async def _tidy(self, error: BaseException, work: Coroutine[Any, Any, Any]) -> None:
        """Take away what was built; nobody waits for that after a cancellation."""
        task = self._worker.own(work)
        if isinstance(error, Exception):
            with suppress(CellshellError):
                await asyncio.shield(task)


def _place(place: Message) -> Message:
    return {"temporary": place.get("temporary"), "target": place.get("target")}


def _regular(fd: int, path: str) -> os.stat_result:
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectory(f"{show(path)} is a directory: expected a file", path=show(path))
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(
            f"{show(path)} is a FIFO, socket or device: expected a regular file", path=show(path)
        )
    return status


def _bits(mode: str | int | None) -> int | None:
    try:
        bits = int(mode, 8) if isinstance(mode, str) else mode
    except ValueError:
        bits = -1
    if bits is not None and not 0 <= bits <= 0o7777:
        raise InvalidRequest(f"expected a mode in octal, such as 0644, got {mode!a}")
    return bits


def _hold(fd: int) -> None:
    """Locked, it is in use: no sweep takes it for the rest of a crash."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _fields(message: Message) -> dict[str, Any]:
    fields = {name: message.get(name) for name in ("path", "destination", "type")}
    return {name: show(value) for name, value in fields.items() if isinstance(value, str)}


async def _started(guest: Guest, path: str) -> None:
    message = await guest.receive()
    if not message.get("started"):
        result(message, path)
