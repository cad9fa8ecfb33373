"""Background processes, from the client's side."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Literal

from interpreter.client_problems import build, parse, parse_list, segment
from interpreter.client_transport import Call, Transport
from interpreter.events import Event
from interpreter.models import (
    Killed,
    Logs,
    ProcessInfo,
    Signal,
    StartProcess,
    Stdin,
    WaitFor,
    WaitResult,
)

Stream = Literal["stdout", "stderr"]
LAST = frozenset({"exit"})


class AsyncProcess:
    """A background process of a sandbox."""

    def __init__(self, transport: Transport, sandbox_path: str, info: ProcessInfo) -> None:
        self._transport = transport
        self._path = f"{sandbox_path}/processes/{segment('process', info.id)}"
        self.info = info
        """What was last heard of it; `refresh` asks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def pid(self) -> int:
        return self.info.pid

    @property
    def status(self) -> Literal["running", "exited", "killed"]:
        return self.info.status

    @property
    def exit_code(self) -> int | None:
        return self.info.exit_code

    async def refresh(self) -> ProcessInfo:
        """Asks how it is, and keeps that in `info`."""
        self.info = parse(ProcessInfo, await self._transport.get(self._path))
        return self.info

    async def kill(self) -> ProcessInfo:
        """Ends its whole tree: SIGTERM, 5 s, SIGKILL."""
        self.info = parse(ProcessInfo, await self._transport.delete(self._path))
        return self.info

    async def send_signal(self, signal: str) -> None:
        """Sends a signal by name, such as `"SIGINT"`."""
        await self._transport.post(f"{self._path}/signal", build(Signal, signal=signal))

    async def write_stdin(self, data: str) -> None:
        await self._transport.post(f"{self._path}/stdin", build(Stdin, data=data))

    async def close_stdin(self) -> None:
        await self._transport.post(f"{self._path}/stdin", build(Stdin, close=True))

    async def logs(self, stream: Stream | None = None, tail: int | None = None) -> Logs:
        """What it wrote so far; `tail`: the last lines only."""
        params = {"stream": stream, "tail": tail}
        return parse(Logs, await self._transport.get(f"{self._path}/logs", params))

    def stream_logs(self) -> AsyncGenerator[Event, None]:
        """What it wrote so far, then what it writes, until the event `exit`."""
        call = Call("GET", f"{self._path}/logs")
        return self._transport.events(call, last=LAST)

    async def wait_for_exit(self, timeout: float = 60.0) -> ProcessInfo:
        """Waits for its end; `WaitTimeout` when that does not come in time."""
        return (await self._wait({"for": "exit", "timeout": timeout})).process

    async def wait_for_log(
        self, pattern: str | re.Pattern[str], *, regex: bool = False, timeout: float = 60.0
    ) -> WaitResult:
        """Waits for a line, past or to come, that contains the text or matches the pattern."""
        if isinstance(pattern, re.Pattern):
            pattern, regex = pattern.pattern, True
        return await self._wait(
            {"for": "log", "pattern": pattern, "regex": regex, "timeout": timeout}
        )

    async def wait_for_port(
        self,
        port: int,
        *,
        path: str | None = None,
        status: int | None = None,
        timeout: float = 60.0,
    ) -> ProcessInfo:
        """Waits until something listens there or, with `path`, answers HTTP with `status`."""
        fields = {"port": port, "path": path, "status": status, "timeout": timeout}
        return (await self._wait({"for": "port", **fields})).process

    async def _wait(self, fields: Mapping[str, object]) -> WaitResult:
        answer = await self._transport.post(f"{self._path}/wait", build(WaitFor, **fields))
        result = parse(WaitResult, answer)
        self.info = result.process
        return result


class ProcessCalls:
    """The calls about processes that a session and a sandbox share."""

    _transport: Transport
    _sandbox_path: str
    _session_path: str

    async def start_process(
        self,
        command: str,
        *,
        id: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str | None] | None = None,
        keep_alive: bool = False,
    ) -> AsyncProcess:
        """Starts a command that outlives the call, in the session's environment."""
        body = build(StartProcess, command=command, id=id, cwd=cwd, env=env, keep_alive=keep_alive)
        answer = await self._transport.post(f"{self._session_path}/processes", body)
        return self._process(parse(ProcessInfo, answer))

    async def list_processes(self) -> list[AsyncProcess]:
        """All processes of the sandbox, running and ended, oldest first."""
        answer = await self._transport.get(f"{self._sandbox_path}/processes")
        return [self._process(info) for info in parse_list(ProcessInfo, answer)]

    async def get_process(self, id: str) -> AsyncProcess:
        answer = await self._transport.get(self._process_path(id))
        return self._process(parse(ProcessInfo, answer))

    async def kill_process(self, id: str) -> ProcessInfo:
        """Ends a process with its whole tree."""
        return parse(ProcessInfo, await self._transport.delete(self._process_path(id)))

    async def kill_all_processes(self) -> int:
        """Ends all processes of the sandbox; says how many ran."""
        answer = await self._transport.delete(f"{self._sandbox_path}/processes")
        return parse(Killed, answer).killed

    async def get_process_logs(
        self, id: str, *, stream: Stream | None = None, tail: int | None = None
    ) -> Logs:
        """What a process wrote so far; `tail`: the last lines only."""
        params = {"stream": stream, "tail": tail}
        return parse(Logs, await self._transport.get(f"{self._process_path(id)}/logs", params))

    def stream_process_logs(self, id: str) -> AsyncGenerator[Event, None]:
        """What a process wrote so far, then what it writes, until the event `exit`."""
        call = Call("GET", f"{self._process_path(id)}/logs")
        return self._transport.events(call, last=LAST)

    def _process(self, info: ProcessInfo) -> AsyncProcess:
        return AsyncProcess(self._transport, self._sandbox_path, info)

    def _process_path(self, id: str) -> str:
        return f"{self._sandbox_path}/processes/{segment('process', id)}"
