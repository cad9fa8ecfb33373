"""The client against answers that a healthy service does not give: drops, refusals, nonsense.

Each test serves a few routes of its own over a real socket. What the client does with the real
service is in test_client_service.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from interpreter import AsyncClient, AsyncSandbox, CellshellError, Client
from interpreter.client_transport import query
from interpreter.errors import (
    BY_CODE,
    InvalidRequest,
    QueueFull,
    SandboxNotFound,
    ServiceUnreachable,
)

Handler = Callable[[Request], Awaitable[Response]]
SANDBOX = {
    "id": "box",
    "status": "running",
    "created_at": "2026-01-01T00:00:00Z",
    "last_activity": "2026-01-01T00:00:00Z",
    "env": {},
    "limits": {},
    "network": "none",
    "isolation": {"tier": "none", "reason": "a test"},
    "workspace": "/workspace",
    "sessions": ["default"],
    "labels": {},
    "newer_than_this_client": True,
}
RESULT = {"id": "run-1", "command": "x", "exit_code": 0, "stdout": "one two", "duration": 0.1}
RESULT |= {"cwd": "/workspace"}


class Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(**handlers: Handler) -> AsyncIterator[str]:
    """The URL of a service with these handlers: `METHOD_last_part_of_the_path`."""

    async def dispatch(request: Request) -> Response:
        last = request.url.path.rsplit("/", 1)[-1].replace("-", "_")
        return await handlers[f"{request.method}_{last}"](request)

    app = Starlette(routes=[Route("/{path:path}", dispatch, methods=["GET", "PUT", "POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = Quiet(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def sandbox_of(**handlers: Handler) -> AsyncIterator[AsyncSandbox]:
    async def put(_: Request) -> Response:
        return JSONResponse(SANDBOX)

    async with serving(PUT_box=put, **handlers) as url, AsyncClient(url) as client:
        yield await client.get_sandbox("box")


@contextlib.asynccontextmanager
async def blocking_service(**handlers: Handler) -> AsyncIterator[str]:
    async def put(_: Request) -> Response:
        return JSONResponse(SANDBOX)

    async def run(request: Request) -> Response:
        streamed = "event-stream" in request.headers["accept"]
        return events(STARTED, ONE, DONE) if streamed else JSONResponse(RESULT)

    async def result(_: Request) -> Response:
        return JSONResponse(RESULT)

    usual: dict[str, Handler] = {"PUT_box": put, "POST_exec": run, "GET_run_1": result}
    async with serving(**{**usual, **handlers}) as url:
        yield url


def events(*lines: tuple[int, str, Any]) -> Response:
    async def body() -> AsyncIterator[str]:
        for number, name, data in lines:
            yield f": heartbeat\n\nid: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


def answering(response: Response) -> Handler:
    async def handle(_: Request) -> Response:
        return response

    return handle


STARTED = (1, "started", {"id": "run-1"})
ONE = (2, "stdout", {"data": "one "})
TWO = (3, "stdout", {"data": "two"})
DONE = (4, "done", {"id": "run-1", "exit_code": 0})


async def test_a_dropped_stream_of_a_run_with_an_id_goes_on_where_it_was() -> None:
    seen: list[str | None] = []

    async def follow(request: Request) -> Response:
        seen.append(request.headers.get("last-event-id"))
        return events(ONE, TWO, DONE) if len(seen) > 1 else events(ONE)

    async def result(_: Request) -> Response:
        return JSONResponse(RESULT)

    first = answering(events(STARTED))
    async with sandbox_of(POST_exec=first, GET_events=follow, GET_run_1=result) as sandbox:
        pieces: list[str] = []
        found = await sandbox.exec("x", id="run-1", on_stdout=pieces.append)
    assert pieces == ["one ", "two"]
    assert seen == ["1", "2"]
    assert found.stdout == "one two"


async def test_a_dropped_stream_of_a_run_without_an_id_is_an_error() -> None:
    async with sandbox_of(POST_exec=answering(events(STARTED, ONE))) as sandbox:
        stream = sandbox.exec_stream("x")
        assert [(await anext(stream)).name, (await anext(stream)).text] == ["started", "one "]
        with pytest.raises(ServiceUnreachable, match="give the run an `id`"):
            await anext(stream)


async def test_an_error_event_raises_its_class() -> None:
    gone = {"code": "queue_full", "status": 429, "detail": "100 wait already", "waiting": 100}
    async with sandbox_of(POST_exec=answering(events(STARTED, (2, "error", gone)))) as sandbox:
        with pytest.raises(QueueFull, match="100 wait already") as raised:
            await sandbox.exec("x", on_stdout=print)
    assert raised.value.details == {"waiting": 100}


async def test_a_callback_that_raises_ends_the_call() -> None:
    left = asyncio.Event()

    async def run(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            try:
                yield f"id: 1\nevent: stdout\ndata: {json.dumps({'data': 'x'})}\n\n"
                await asyncio.Event().wait()
            finally:
                left.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    def refuse(_: str) -> None:
        raise ZeroDivisionError

    async with sandbox_of(POST_exec=run) as sandbox:
        with pytest.raises(ZeroDivisionError):
            await sandbox.exec("x", on_stdout=refuse)
        await asyncio.wait_for(left.wait(), 10)


async def test_every_code_raises_its_class() -> None:
    kinds = iter(BY_CODE.values())

    async def refuse(_: Request) -> Response:
        kind = next(kinds)
        document = {"code": kind.code, "detail": "why", "message": 1, "self": 2}
        return JSONResponse(document, kind.status, {"Retry-After": "7"})

    async with serving(GET_health=refuse) as url, AsyncClient(url) as client:
        for code, kind in BY_CODE.items():
            with pytest.raises(kind, match="why") as raised:
                await client.health()
            assert type(raised.value) is kind
            assert (raised.value.code, raised.value.status) == (code, kind.status)
            assert raised.value.details == {"message": 1, "self": 2, "retry_after": 7.0}


async def test_an_unknown_code_is_kept() -> None:
    answer = JSONResponse({"code": "too_purple", "status": 418, "detail": "no"}, 418)
    async with serving(GET_health=answering(answer)) as url, AsyncClient(url) as client:
        with pytest.raises(CellshellError) as raised:
            await client.health()
    assert (raised.value.code, raised.value.status) == ("too_purple", 418)


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("<html>", 502),
        PlainTextResponse("not JSON"),
        JSONResponse([1, 2]),
        JSONResponse({"ok": "perhaps"}),
        PlainTextResponse("[" * 100_000),
        JSONResponse({"code": 3}, 500),
    ],
)
async def test_an_answer_that_no_service_gives_is_named_as_such(answer: Response) -> None:
    async with serving(GET_health=answering(answer)) as url, AsyncClient(url) as client:
        with pytest.raises(CellshellError) as raised:
            await client.health()
    assert raised.value.code == "unexpected_answer"


@pytest.mark.parametrize("data", ["{", "3", "[" * 100_000, '{"id": NaN'])
async def test_a_stream_of_nonsense_is_an_error(data: str) -> None:
    body = f"id: 1\nevent: stdout\ndata: {data}\n\n"
    answer = PlainTextResponse(body, media_type="text/event-stream")
    async with sandbox_of(POST_exec=answering(answer)) as sandbox:
        with pytest.raises(CellshellError, match="expected an event"):
            await anext(sandbox.exec_stream("x"))


async def test_line_separators_in_data_do_not_split_an_event() -> None:
    text = "a\u2028b\u0085c\x0bd"
    body = f'id: 1\nevent: stdout\ndata: {{"data": "{text}"}}\n\n'.replace("\x0b", "\\u000b")
    answer = PlainTextResponse(body, media_type="text/event-stream")
    async with sandbox_of(POST_exec=answering(answer)) as sandbox:
        assert (await anext(sandbox.exec_stream("x"))).text == text


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ServiceUnreachable, match="cellshell serve"):
            await client.health()


@pytest.mark.parametrize("id", ["", "..", "a/b", "a" * 64, "a\n", "?", "é", None, 3])
async def test_an_id_that_would_be_another_url_is_refused(id: Any) -> None:
    async with AsyncClient() as client:
        with pytest.raises(InvalidRequest):
            await client.find_sandbox(id)


@pytest.mark.parametrize(
    ("url", "token"),
    [("localhost:8000", None), ("", None), ("http://x", "a\nb"), ("http://x", "é")],
)
def test_a_bad_address_is_refused(url: str, token: str | None) -> None:
    with pytest.raises(InvalidRequest):
        AsyncClient(url, token)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("a\0b", {}),
        ("\ud800", {}),
        (3, {}),
        ("x", {"timeout": 0}),
        ("x", {"timeout": float("nan")}),
        ("x", {"env": {"1A": "x"}}),
        ("x", {"no_such_option": 1}),
    ],
)
async def test_a_bad_request_is_refused_before_it_is_sent(
    command: Any, options: dict[str, Any]
) -> None:
    async with sandbox_of() as sandbox:
        with pytest.raises(InvalidRequest):
            await sandbox.exec(command, **options)


async def test_a_file_name_that_is_not_utf_8_arrives_as_its_bytes() -> None:
    seen: list[bytes] = []

    async def content(request: Request) -> Response:
        seen.append(request.scope["query_string"])
        return Response(b"")

    async with sandbox_of(GET_content=content) as sandbox:
        await sandbox.read_file(b"\xff a&b=\xc3\xbc".decode("utf-8", "surrogateescape"))
        with pytest.raises(InvalidRequest):
            await sandbox.read_file("\ud800")
    assert seen == [b"path=%FF%20a%26b%3D%C3%BC"]
    assert query({"recursive": True, "tail": 0, "path": None}) == "?recursive=true&tail=0"


async def test_not_found_leaves_the_connection_usable() -> None:
    answers = iter([JSONResponse({"code": "sandbox_not_found", "detail": "no"}, 404)])

    async def find(_: Request) -> Response:
        return next(answers, JSONResponse(SANDBOX))

    async with serving(GET_box=find) as url, AsyncClient(url) as client:
        with pytest.raises(SandboxNotFound):
            await client.find_sandbox("box")
        assert (await client.find_sandbox("box")).id == "box"


async def test_the_blocking_client_inside_a_running_loop() -> None:
    threads: list[int] = []

    async def use(url: str) -> str:
        with Client(url) as client:
            sandbox = client.get_sandbox("box")
            found = sandbox.exec("x", on_stdout=lambda _: threads.append(threading.get_ident()))
            names = [event.name for event in sandbox.exec_stream("x")]
            threads.append(threading.get_ident())
            return f"{sandbox!r} {found.stdout} {' '.join(names)}"

    async with blocking_service() as url:
        shown = await asyncio.to_thread(asyncio.run, use(url))
    assert shown == "<Sandbox box> one two started stdout done"
    assert len(set(threads)) == 1, "callbacks run in the caller's thread"


async def test_a_closed_client_says_so() -> None:
    def use(url: str) -> None:
        client = Client(url)
        sandbox = client.get_sandbox("box")
        client.close()
        client.close()
        with pytest.raises(CellshellError, match="was closed"):
            sandbox.exec("x")

    async with blocking_service() as url:
        await asyncio.to_thread(use, url)


async def test_closing_ends_what_waits_and_the_thread() -> None:
    arrived = threading.Event()

    async def wait(_: Request) -> Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    def use(url: str) -> str:
        client = Client(url)
        sandbox = client.get_sandbox("box")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(sandbox.exec, "x")
            arrived.wait(10)
            client.close()
            error = waiting.exception(10)
        return str(error)

    async with blocking_service(POST_exec=wait) as url:
        assert await asyncio.to_thread(use, url) == (
            "the client was closed while this call waited for its answer"
        )
    assert not [each for each in threading.enumerate() if each.name == "cellshell client"]


async def test_an_abandoned_client_ends_its_thread() -> None:
    def use(url: str) -> threading.Thread:
        sandbox = Client(url).get_sandbox("box")
        assert sandbox.exec("x").exit_code == 0, "a sandbox keeps its client alive"
        return sandbox._thread._thread

    async with blocking_service() as url:
        thread = await asyncio.to_thread(use, url)
        gc.collect()
        await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_a_forked_process_is_told_to_make_a_client_of_its_own() -> None:
    def use(url: str) -> bytes:
        with Client(url) as client:
            reader, writer = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                try:
                    client.health()
                except CellshellError as error:
                    os.write(writer, str(error).encode())
                finally:
                    os._exit(0)
            os.close(writer)
            os.waitpid(child, 0)
            with os.fdopen(reader, "rb") as said:
                return said.read()

    async with blocking_service() as url:
        assert b"make a new client there" in await asyncio.to_thread(use, url)
