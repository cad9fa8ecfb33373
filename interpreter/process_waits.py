"""Waiting for a process: for its end, for a line in its log, for a port it listens on."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from interpreter.errors import InvalidRequest, PortUnreachable, ProcessExited, WaitTimeout
from interpreter.models import WaitResult
from interpreter.pattern import PatternSearch
from interpreter.ports import listens, open_connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from interpreter.box import Box
    from interpreter.logs import ProcessLog
    from interpreter.models import WaitFor
    from interpreter.process import Process

LINE_BYTES = 64 * 1024
"""A longer line is searched in pieces."""
FIRST_PROBE, LAST_PROBE = 0.01, 0.25
"""Linux tells nobody that a port is listened on. A look costs 0.1 ms; the pause between two grows
by half each time, so that a server is seen soon after it came, and a slow one costs little."""
ANSWER_TIMEOUT = 10.0


async def wait_for(process: Process, log: ProcessLog, request: WaitFor) -> WaitResult:
    try:
        async with asyncio.timeout(request.timeout):
            if request.for_ == "exit":
                await process.wait()
                return WaitResult(process=process.info())
            if request.for_ == "log":
                return await _log(process, log, request)
            return await _port(process, request)
    except TimeoutError:
        raise WaitTimeout(
            f"waited {request.timeout:g} seconds for {_what(request)} of process {process.id!r}: "
            "it did not come",
            process=process.info().model_dump(),
        ) from None


def _what(request: WaitFor) -> str:
    match request.for_:
        case "exit":
            return "the end"
        case "log":
            return f"a line with {(request.pattern or '')[:200]!r} in the log"
        case "port" if request.path is None and request.status is None:
            return f"a listener on port {request.port}"
    return f"an answer on port {request.port}"


def _exited(process: Process, request: WaitFor) -> ProcessExited:
    info = process.info()
    return ProcessExited(
        f"process {process.id!r} ended with exit code {info.exit_code} before "
        f"{_what(request)} came",
        process=info.model_dump(),
    )


# The log


async def _log(process: Process, log: ProcessLog, request: WaitFor) -> WaitResult:
    if not request.pattern or (not request.regex and "\n" in request.pattern):
        raise InvalidRequest(
            "expected `pattern`, a text within one line, to wait for a line of the log: got "
            f"{(request.pattern or '')[:200]!r}"
        )
    search = _matching if request.regex else _containing
    found = await search(log, request.pattern)
    if found is None:
        await process.wait()
        raise _exited(process, request)
    line, groups = found
    return WaitResult(process=process.info(), line=line, match=groups)


async def _containing(log: ProcessLog, pattern: str) -> tuple[str, list[str | None]] | None:
    """Also in a line without its end, as prompts are."""
    wanted = pattern.encode()
    async with aclosing(lines(log)) as found:
        async for line, _ in found:
            if wanted in line:
                return line.decode("utf-8", "replace"), [pattern]
    return None


async def _matching(log: ProcessLog, pattern: str) -> tuple[str, list[str | None]] | None:
    """In whole lines only: what is still being written would match too little."""
    async with PatternSearch(pattern) as search, aclosing(lines(log)) as found:
        feeding = asyncio.ensure_future(_feed(search, found))
        try:
            return await search.result()
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding


async def _feed(search: PatternSearch, found: AsyncGenerator[tuple[bytes, bool], None]) -> None:
    async for line, whole in found:
        if whole and not await search.feed(line.decode("utf-8", "replace")):
            return
    search.end()


async def lines(log: ProcessLog) -> AsyncGenerator[tuple[bytes, bool], None]:
    """Lines of both streams without their ends, as they come, and whether each is whole.

    What has no end yet comes as far as it is there, and again when it grows.
    """
    begun = {"stdout": b"", "stderr": b""}
    async with aclosing(log.follow()) as pieces:
        async for piece in pieces:
            before = b"" if piece.omitted else begun[piece.stream]
            *whole, rest = (before + piece.data).split(b"\n")
            for line in whole:
                yield line.removesuffix(b"\r"), True
            while len(rest) >= LINE_BYTES:
                yield rest[:LINE_BYTES], True
                rest = rest[LINE_BYTES:]
            begun[piece.stream] = rest
            if rest:
                yield rest, False
    for rest in begun.values():
        if rest:
            yield rest, True


# The port


async def _port(process: Process, request: WaitFor) -> WaitResult:
    if request.port is None:
        raise InvalidRequest("expected `port`, the number of the port to wait for")
    pause = FIRST_PROBE
    while True:
        if not process.running or process.box is None:
            raise _exited(process, request)
        found = listens(process.box.host_pid, process.host_pid, request.port)
        if found and await _answers(process.box, request, request.port):
            return WaitResult(process=process.info())
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await process.wait()
        pause = min(pause * 1.5, LAST_PROBE)


async def _answers(box: Box, request: WaitFor, port: int) -> bool:
    if request.path is None and request.status is None:
        return True
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            status = await _get(box, port, request.path or "/")
    except (OSError, PortUnreachable, asyncio.LimitOverrunError, EOFError):
        return False  # a time-out too is an OSError
    return status < 400 if request.status is None else status == request.status


async def _get(box: Box, port: int, path: str) -> int:
    """The status a GET is answered with."""
    reader, writer = await open_connection(box, port)
    target = quote("/" + path.removeprefix("/"), safe="/%?&=+,;:@!$'()*~-._[]")
    head = f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    try:
        writer.write(head.encode())
        answer = await reader.readuntil(b"\n")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    status = re.match(rb"HTTP/\d\.\d (\d{3})\b", answer)
    if not status:
        raise EOFError("that was no answer of an HTTP server")
    return int(status[1])
