"""The background processes of a sandbox: started, listed, ended, forgotten, found again."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from interpreter import process_start, trees
from interpreter.errors import (
    AtCapacity,
    ProcessExists,
    ProcessNotFound,
    Unavailable,
)
from interpreter.events import dumps, now
from interpreter.fields import ID_PATTERN
from interpreter.logs import KEPT_BYTES, ProcessLog
from interpreter.models import ProcessInfo
from interpreter.process import Process, Struck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from interpreter.box import Box
    from interpreter.box_process import BoxProcess
    from interpreter.models import StartProcess
    from interpreter.process_start import Starter

__all__ = ["Process", "Processes"]

KEPT_ENDED = 200
NAME = "process:"
"""In front of the id: what init calls a process, for the next service to find."""
SHOWN_CHARACTERS = 64 * 1024
_RECORD, _FORGOTTEN = "process.json", "forgotten"
_log = logging.getLogger(__name__)


class Processes:
    """Of one sandbox, oldest first. `directory` keeps a directory for each id: record and log.

    The directory of a forgotten process stays, with nothing but a mark, when its id was given by a
    client: an id once used is never used again.
    """

    def __init__(
        self,
        get_box: Callable[[], Awaitable[Box]],
        directory: Path,
        *,
        kept_bytes: int = KEPT_BYTES,
        kept_ended: int = KEPT_ENDED,
        most_running: int = 1000,
        struck: Struck = list,
    ) -> None:
        """`kept_bytes` of output of each process, and so many that have ended. `struck` tells what
        limits of the sandbox have struck since it was asked last."""
        self._struck = struck
        self._get_box = get_box
        self._directory = directory
        self._kept_bytes = kept_bytes
        self._kept_ended = kept_ended
        self._most_running = most_running
        self._processes: dict[str, Process] = {}
        self._starting: set[asyncio.Task[Process]] = set()

    def get(self, id: str) -> Process:
        try:
            return self._processes[id]
        except KeyError:
            raise ProcessNotFound(
                f"this sandbox has no process {id!r}, or has forgotten it: list the processes"
            ) from None

    def list(self) -> list[Process]:
        return list(self._processes.values())

    async def start(self, session: Starter, request: StartProcess) -> Process:
        """Run `bash -c command` in the session's environment, as it is now.

        Raises ProcessExists, InvalidCwd, DiskFull, AtCapacity. A caller that goes away leaves a
        process that is listed.
        """
        self._check_room()
        id = request.id or f"p{secrets.token_hex(6)}"
        directory = self._reserve(id)
        task = asyncio.ensure_future(self._start(session, request, id, directory))
        self._starting.add(task)
        task.add_done_callback(self._started)
        return await asyncio.shield(task)

    async def kill_all(self) -> int:
        """How many were running."""
        running = [process for process in self._processes.values() if process.running]
        await asyncio.gather(*(process.kill() for process in running))
        return len(running)

    async def restore(self, box: Box | None, live: Mapping[str, BoxProcess]) -> None:
        """After the service was started again: take up the records, and what still runs.

        `live` are the processes of the box by the names init knows them by.
        """
        self._clear_unbegun(live)
        found = [self._load(path) for path in self._directory.glob(f"*/{_RECORD}")]
        infos = sorted((info for info in found if info), key=lambda info: info.started_at)
        for info in infos:
            log = ProcessLog(self._directory / info.id, kept_bytes=self._kept_bytes)
            process = self._processes[info.id] = Process(info, log, self._struck)
            handle = live.get(NAME + info.id)
            if process.running and box and handle:
                process.run(box, handle, self._changed)
            elif process.running:
                process.lose()
                self._changed(process)
        if box:
            await self._end_unknown(box, live)

    def _clear_unbegun(self, live: Mapping[str, BoxProcess]) -> None:
        """What a service was killed over before it had started anything: the id is free again."""
        for directory in self._directory.glob("*"):
            path = directory / _RECORD
            info = self._load(path) if path.exists() else None
            begun = info is None or info.pid or NAME + directory.name in live
            if not (path.exists() and begun) and not (directory / _FORGOTTEN).exists():
                shutil.rmtree(directory, ignore_errors=True)

    def keep_alive(self) -> bool:
        """Whether one runs that its sandbox is to go on for."""
        running = (process.info() for process in self.list())
        return any(info.keep_alive and info.status == "running" for info in running)

    def close(self) -> None:
        """Let go of all without ending any: before the connection to the box is closed."""
        for task in self._starting:
            task.cancel()
        for process in self._processes.values():
            process.close()

    def _started(self, task: asyncio.Task[Process]) -> None:
        self._starting.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone

    def _check_room(self) -> None:
        running = sum(process.running for process in self._processes.values())
        if running + len(self._starting) >= self._most_running:
            raise AtCapacity(
                f"{running} processes run here, and {self._most_running} are the most: end some"
            )

    def _reserve(self, id: str) -> Path:
        directory = self._directory / id
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise ProcessExists(
                f"the id {id!r} was used for a process of this sandbox before: choose another",
                id=id,
            ) from None
        except OSError as error:
            raise process_start.disk_full(error) from error
        return directory

    async def _start(
        self, session: Starter, request: StartProcess, id: str, directory: Path
    ) -> Process:
        try:
            box = await self._get_box()
            cwd = await process_start.directory(box, session, request.cwd)
            info = _info(id, session.id, request, cwd)
            self._save(info)
            env = process_start.environment(session, request.env, cwd)
            script = await process_start.script(box, request.command)
            argv = ["bash", script] if script else ["bash", "-c", request.command]
            handle = await process_start.spawn(box, argv, env, cwd, NAME + id)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        log = ProcessLog(directory, kept_bytes=self._kept_bytes)
        process = Process(info, log, self._struck)
        self._processes[id] = process
        process.run(box, handle, self._changed, script)
        self._keep(info)
        return process

    def _changed(self, process: Process) -> None:
        self._keep(process.info())
        settled = [process for process in self._processes.values() if process.settled]
        for old in settled[: max(0, len(settled) - self._kept_ended)]:
            self._forget(old)

    def _forget(self, process: Process) -> None:
        del self._processes[process.id]
        process.close()
        directory = self._directory / process.id
        with suppress(FileNotFoundError):
            (directory / _FORGOTTEN).touch()
            for file in directory.iterdir():
                if file.name != _FORGOTTEN:
                    file.unlink()
            if re.fullmatch(r"p[0-9a-f]{12}", process.id):
                shutil.rmtree(directory)

    def _load(self, path: Path) -> ProcessInfo | None:
        try:
            info = ProcessInfo.model_validate_json(path.read_bytes())
        except ValidationError:
            info = None
        if info and info.id == path.parent.name and re.fullmatch(ID_PATTERN, info.id):
            return info
        _log.warning("%s is no record of a process: left alone", path)
        return None

    def _save(self, info: ProcessInfo) -> None:
        path = self._directory / info.id / _RECORD
        fresh = path.with_suffix(".new")
        try:
            fresh.write_bytes(dumps(info.model_dump()))
            fresh.rename(path)
        except OSError as error:
            raise process_start.disk_full(error) from error

    def _keep(self, info: ProcessInfo) -> None:
        """Save where there is nobody to tell that it failed."""
        try:
            self._save(info)
        except (OSError, Unavailable):
            _log.warning("the record of process %s could not be written", info.id)

    async def _end_unknown(self, box: Box, live: Mapping[str, BoxProcess]) -> None:
        """Started by a service that did not live to write it down: nobody was told of it."""
        for name, handle in live.items():
            id = name.removeprefix(NAME)
            if name.startswith(NAME) and id not in self._processes:
                await trees.kill_all(box, [handle.pid])
                for fd in (handle.stdin, handle.stdout, handle.stderr):
                    if fd is not None:
                        os.close(fd)
                await handle.wait()
                await handle.release()


def _shown(command: str) -> str:
    """Records and lists hold no command of megabytes."""
    omitted = len(command) - SHOWN_CHARACTERS
    if omitted <= 0:
        return command
    return f"{command[:SHOWN_CHARACTERS]}[... {omitted} characters omitted ...]"


def _info(id: str, session: str, request: StartProcess, cwd: str) -> ProcessInfo:
    return ProcessInfo(
        id=id,
        pid=0,
        command=_shown(request.command),
        keep_alive=request.keep_alive,
        status="running",
        exit_code=None,
        signal=None,
        cwd=cwd,
        session=session,
        started_at=now(),
        ended_at=None,
    )
