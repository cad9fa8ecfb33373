"""The Python client for callers that block: `Client`.

One implementation: each method here runs the method of the same name of `AsyncClient` and its
objects on a private loop thread, so it works inside a running event loop too (Jupyter). Callbacks
run in the calling thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from interpreter.client import AsyncClient
from interpreter.client_context import AsyncContext
from interpreter.client_process import AsyncProcess
from interpreter.client_session import AsyncSandbox, AsyncSession, SessionCalls
from interpreter.loop_thread import LoopThread
from interpreter.models import ContextInfo, ProcessInfo, SandboxInfo, SessionInfo
from interpreter.settings import Settings

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
S_co = TypeVar("S_co", bound=SessionCalls, covariant=True)
P = ParamSpec("P")
R = TypeVar("R")


class Blocking(Generic[A_co]):
    """An object of the asynchronous client, and the thread where it lives."""

    def __init__(self, thread: LoopThread, wrapped: A_co) -> None:
        self._thread = thread
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("<Async", "<", 1)


B = TypeVar("B", bound=Blocking[Any])


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[A], P], R]:
    """The same method, waiting for its result."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **options: P.kwargs) -> R:
        return self._thread.call(method, self._wrapped, *args, **options)

    return call


def making(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
    kind: Callable[[LoopThread, R], B],
) -> Callable[Concatenate[Blocking[A], P], B]:
    """The same method, waiting for the object it makes."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **options: P.kwargs) -> B:
        return kind(self._thread, self._thread.call(method, self._wrapped, *args, **options))

    return call


def listing(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, list[R]]],
    kind: Callable[[LoopThread, R], B],
) -> Callable[Concatenate[Blocking[A], P], list[B]]:
    """The same method, waiting for the objects it lists."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **options: P.kwargs) -> list[B]:
        found = self._thread.call(method, self._wrapped, *args, **options)
        return [kind(self._thread, each) for each in found]

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Blocking[A], P], Generator[R, None, None]]:
    """The same stream, waiting for each item; `close` it (or leave a `for` loop) to end it."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **options: P.kwargs) -> Generator[R, None, None]:
        return self._thread.iterate(method(self._wrapped, *args, **options))

    return call


class Process(Blocking[AsyncProcess]):
    """A background process of a sandbox."""

    @property
    def info(self) -> ProcessInfo:
        return self._wrapped.info

    @property
    def id(self) -> str:
        return self._wrapped.id

    @property
    def pid(self) -> int:
        return self._wrapped.pid

    @property
    def status(self) -> str:
        return self._wrapped.status

    @property
    def exit_code(self) -> int | None:
        return self._wrapped.exit_code

    refresh = blocking(AsyncProcess.refresh)
    kill = blocking(AsyncProcess.kill)
    send_signal = blocking(AsyncProcess.send_signal)
    write_stdin = blocking(AsyncProcess.write_stdin)
    close_stdin = blocking(AsyncProcess.close_stdin)
    logs = blocking(AsyncProcess.logs)
    stream_logs = iterating(AsyncProcess.stream_logs)
    wait_for_exit = blocking(AsyncProcess.wait_for_exit)
    wait_for_log = blocking(AsyncProcess.wait_for_log)
    wait_for_port = blocking(AsyncProcess.wait_for_port)


class Context(Blocking[AsyncContext]):
    """A code context: one kernel of a session, with its names."""

    @property
    def info(self) -> ContextInfo:
        return self._wrapped.info

    @property
    def id(self) -> str:
        return self._wrapped.id

    @property
    def language(self) -> str:
        return self._wrapped.language

    refresh = blocking(AsyncContext.refresh)
    run_code = blocking(AsyncContext.run_code)
    run_code_stream = iterating(AsyncContext.run_code_stream)
    interrupt = blocking(AsyncContext.interrupt)
    restart = blocking(AsyncContext.restart)
    variables = blocking(AsyncContext.variables)
    complete = blocking(AsyncContext.complete)
    inspect = blocking(AsyncContext.inspect)
    notebook = blocking(AsyncContext.notebook)
    connection = blocking(AsyncContext.connection)
    kernel_id = blocking(AsyncContext.kernel_id)
    delete = blocking(AsyncContext.delete)


class BlockingSessionCalls(Blocking[S_co]):
    """What a session can do, and a sandbox through its `default` session."""

    notebook = blocking(SessionCalls.notebook)
    run_notebook = blocking(SessionCalls.run_notebook)
    run_notebook_stream = iterating(SessionCalls.run_notebook_stream)
    exec = blocking(SessionCalls.exec)
    exec_stream = iterating(SessionCalls.exec_stream)
    exec_detached = blocking(SessionCalls.exec_detached)
    run_code = blocking(SessionCalls.run_code)
    run_code_stream = iterating(SessionCalls.run_code_stream)
    run_code_detached = blocking(SessionCalls.run_code_detached)
    get_execution = blocking(SessionCalls.get_execution)
    stream_execution = iterating(SessionCalls.stream_execution)
    cancel_execution = blocking(SessionCalls.cancel_execution)

    create_code_context = making(SessionCalls.create_code_context, Context)
    list_code_contexts = listing(SessionCalls.list_code_contexts, Context)
    get_code_context = making(SessionCalls.get_code_context, Context)
    delete_code_context = blocking(SessionCalls.delete_code_context)
    kernel_id = blocking(SessionCalls.kernel_id)

    start_process = making(SessionCalls.start_process, Process)
    list_processes = listing(SessionCalls.list_processes, Process)
    get_process = making(SessionCalls.get_process, Process)
    kill_process = blocking(SessionCalls.kill_process)
    kill_all_processes = blocking(SessionCalls.kill_all_processes)
    get_process_logs = blocking(SessionCalls.get_process_logs)
    stream_process_logs = iterating(SessionCalls.stream_process_logs)

    write_file = blocking(SessionCalls.write_file)
    read_file_stream = iterating(SessionCalls.read_file_stream)
    mkdir = blocking(SessionCalls.mkdir)
    delete_file = blocking(SessionCalls.delete_file)
    rename_file = blocking(SessionCalls.rename_file)
    move_file = blocking(SessionCalls.move_file)
    copy_file = blocking(SessionCalls.copy_file)
    list_files = blocking(SessionCalls.list_files)
    file_info = blocking(SessionCalls.file_info)
    exists = blocking(SessionCalls.exists)
    watch = iterating(SessionCalls.watch)
    download_archive = iterating(SessionCalls.download_archive)
    upload_archive = blocking(SessionCalls.upload_archive)
    git_checkout = blocking(SessionCalls.git_checkout)

    get_environment = blocking(SessionCalls.get_environment)

    @overload
    def read_file(self, path: str, *, encoding: None = None) -> bytes: ...

    @overload
    def read_file(self, path: str, *, encoding: str) -> str: ...

    def read_file(self, path: str, *, encoding: str | None = None) -> bytes | str:
        """The bytes of a file, or with an `encoding` its text."""
        content = self._thread.run(self._wrapped.read_file(path))
        return content if encoding is None else content.decode(encoding)


class Session(BlockingSessionCalls[AsyncSession]):
    """A shell, code contexts and files that share one environment."""

    @property
    def info(self) -> SessionInfo:
        return self._wrapped.info

    @property
    def id(self) -> str:
        return self._wrapped.id

    refresh = blocking(AsyncSession.refresh)
    set_env_vars = blocking(AsyncSession.set_env_vars)
    delete = blocking(AsyncSession.delete)


class Sandbox(BlockingSessionCalls[AsyncSandbox]):
    """One isolated computer. The methods of a session act on its `default` session."""

    @property
    def info(self) -> SandboxInfo:
        return self._wrapped.info

    @property
    def id(self) -> str:
        return self._wrapped.id

    refresh = blocking(AsyncSandbox.refresh)
    create_session = making(AsyncSandbox.create_session, Session)
    get_session = making(AsyncSandbox.get_session, Session)
    list_sessions = listing(AsyncSandbox.list_sessions, Session)
    delete_session = blocking(AsyncSandbox.delete_session)
    set_env_vars = blocking(AsyncSandbox.set_env_vars)
    network_log = blocking(AsyncSandbox.network_log)
    list_ports = blocking(AsyncSandbox.list_ports)
    usage = blocking(AsyncSandbox.usage)
    pause = blocking(AsyncSandbox.pause)
    resume = blocking(AsyncSandbox.resume)
    destroy = blocking(AsyncSandbox.destroy)


class Client(Blocking[AsyncClient]):
    """Talks to a Cellshell service.

        with Client("http://127.0.0.1:8000") as client:
            sandbox = client.get_sandbox("user-123")
            print(sandbox.exec("uname -a").stdout)

    Its thread ends with the `with` block or `close`. It does not survive `fork`: make a new client
    in the child.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        client = AsyncClient(base_url, token, transport=transport)
        super().__init__(LoopThread(client.aclose), client)

    @classmethod
    def local(cls, settings: Settings | None = None) -> Self:
        """A client with a service of its own, in this process and without a port; see there."""
        client, wrapped = cls.__new__(cls), AsyncClient.local(settings)
        Blocking.__init__(client, LoopThread(wrapped.aclose), wrapped)
        try:
            client._thread.run(wrapped.__aenter__())
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections, ends a local service and the thread."""
        self._thread.close()

    health = blocking(AsyncClient.health)
    languages = blocking(AsyncClient.languages)
    get_sandbox = making(AsyncClient.get_sandbox, Sandbox)
    create_sandbox = making(AsyncClient.create_sandbox, Sandbox)
    find_sandbox = making(AsyncClient.find_sandbox, Sandbox)
    list_sandboxes = listing(AsyncClient.list_sandboxes, Sandbox)
    delete_sandbox = blocking(AsyncClient.delete_sandbox)
