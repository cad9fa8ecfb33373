"""stdout and stderr of a Python kernel, and whose output it is.

ipykernel hands every message and every flush to its IO thread; here the thread that speaks sends,
which makes a small cell three times as fast. Loaded by path inside the kernel's process.
"""

# mypy: disable-error-code="no-untyped-call, union-attr, attr-defined"
from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import zmq
from ipykernel.iostream import IOPubThread, OutStream
from jupyter_client.session import extract_header
from zmq.eventloop.zmqstream import ZMQStream

CHUNK = 1 << 20
"""Longest text of one message, and how much waits before a writer has to send it itself."""
FASTEST_PROGRAM = 0.0005


class Interrupts(Protocol):
    def hold(self) -> AbstractContextManager[None]: ...


class Outbox(Protocol):
    def stamp(self, frames: Sequence[Any]) -> list[Any]: ...


class Capture(Protocol):
    descriptor: int

    def begin(self, parent: dict[str, Any], *, apart: bool) -> None: ...
    def collect(self) -> None: ...
    def forget(self) -> None: ...


MakeCapture = Callable[[int, Callable[[dict[str, Any], str], None]], Capture]


class Publisher(IOPubThread):
    """Sends from the thread that has something to say.

    A ZeroMQ socket may be used by several threads, one at a time. ipykernel has its IO thread send,
    and every message costs two changes of the interpreter's lock. Forked children say theirs
    through an abstract socket rather than a TCP port.
    """

    def __init__(self, *args: Any, interrupts: Interrupts, outbox: Outbox, **options: Any) -> None:
        self._interrupts = interrupts
        self._outbox = outbox
        self._forget()
        super().__init__(*args, **options)
        os.register_at_fork(after_in_child=self._forget)

    def send_multipart(self, *args: Any, **kwargs: Any) -> None:
        with self.alone():
            self._really_send(*args, **kwargs)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing is sent meanwhile by another thread, nor is this one interrupted."""
        with self._interrupts.hold(), self._sending:
            yield

    def _really_send(self, msg: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        if self._check_mp_mode():  # a forked child
            super()._really_send(msg, *args, **kwargs)
        elif not self.closed:
            _send_whole(self.socket, self._outbox.stamp(msg), copy=kwargs.get("copy", True))

    def _forget(self) -> None:
        self._sending = threading.RLock()

    def _setup_xpub_listener(self) -> None:
        """It would read the socket in the IO thread; no client waits for `iopub_welcome`."""

    def _setup_pipe_in(self) -> None:
        self._pipe_uuid = os.urandom(16)
        self._pipe_port = f"ipc://@ipykernel-{self._pipe_uuid.hex()}"
        pipe = self.socket.context.socket(zmq.PULL)
        pipe.linger = 0
        pipe.bind(self._pipe_port)
        self._pipe_in = ZMQStream(pipe, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def _setup_pipe_out(self) -> tuple[Any, Any]:
        context: zmq.Context[Any] = zmq.Context()
        pipe = context.socket(zmq.PUSH)
        pipe.linger = 3000
        pipe.connect(self._pipe_port)
        return context, pipe


def _send_whole(socket: Any, frames: Sequence[Any], copy: bool) -> None:
    """All frames, whatever is raised meanwhile: half a message would spoil the next."""
    left = deque(frames)
    try:
        while left:
            flags = zmq.SNDMORE if len(left) > 1 else 0
            socket.send(left[0], flags, copy=copy)
            left.popleft()
    except zmq.ZMQError:
        if not socket.closed:  # closed at the end of the process: nobody listens any more
            raise
    except BaseException:
        _send_whole(socket, left, copy)
        raise


class Stream(OutStream):
    """One of the two; what programs write to its descriptor goes the same way."""

    flush_interval = 0.03

    def __init__(
        self, *args: Any, interrupts: Interrupts, capture: MakeCapture, **options: Any
    ) -> None:
        self._interrupts = interrupts
        self._make_capture = capture
        self._looked = 0.0
        self._forget()
        super().__init__(*args, **options)
        os.register_at_fork(after_in_child=self._forget_in_child)

    def write(self, string: str) -> int:
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if not self._is_master_process():
            _write_all(self._capture.descriptor, string.encode("utf-8", "backslashreplace"))
            return len(string)
        self._look_for_programs()
        self._take(self.parent_header, string)
        return len(string)

    def flush(self) -> None:
        """Send what was written, and what programs wrote to the descriptor."""
        if not self._is_master_process():
            return
        with self._interrupts.hold():
            self._capture.collect()
            self._flush()

    def begin(self, parent: dict[str, Any], *, apart: bool) -> None:
        """A cell begins."""
        self._capture.begin(extract_header(parent), apart=apart)

    def fileno(self) -> int:
        """The descriptor that is captured, so that a program given it is captured too."""
        return self._capture.descriptor

    def close(self) -> None:
        """Flush: a kernel without its stdout could not tell what follows."""
        self.flush()

    def _look_for_programs(self) -> None:
        """What a program wrote between two writes belongs between them; none is this fast."""
        now = time.monotonic()
        if now - self._looked > FASTEST_PROGRAM:
            self._looked = now
            with self._interrupts.hold():
                self._capture.collect()

    def _take(self, parent: dict[str, Any], text: str) -> None:
        self._written.append((parent, text))
        self._size += len(text)
        if self._size > CHUNK:
            self._flush()
        elif not self._flush_pending:
            self._schedule_flush()

    def _forget(self) -> None:
        self._written: deque[tuple[dict[str, Any], str]] = deque()
        self._size = 0
        self._sending = threading.RLock()

    def _forget_in_child(self) -> None:
        self._forget()
        self._capture.forget()

    def _flush(self) -> None:
        with self._interrupts.hold(), self._sending:
            self._send_written()

    def _send_written(self) -> None:
        self._size = 0
        texts: dict[str, tuple[dict[str, Any], list[str]]] = {}
        for parent, text in _drained(self._written):
            texts.setdefault(parent.get("msg_id", ""), (parent, []))[1].append(text)
        for parent, parts in texts.values():
            self._send("".join(parts), parent)

    def _send(self, text: str, parent: dict[str, Any]) -> None:
        for start in range(0, len(text), CHUNK):
            content = {"name": self.name, "text": text[start : start + CHUNK]}
            message = self.session.msg("stream", content, parent=parent)
            for hook in self._hooks:
                message = hook(message)
                if message is None:
                    return
            self.session.send(self.pub_thread, message, ident=self.topic)

    def _schedule_flush(self) -> None:
        self._flush_pending = True
        self.pub_thread.schedule(
            lambda: self._io_loop.call_later(self.flush_interval, self._flush_later)
        )

    def _flush_later(self) -> None:
        """In the IO thread, which must not wait for a thread that may be waiting for it."""
        self._flush_pending = False
        if self._sending.acquire(blocking=False):
            try:
                self._send_written()
            finally:
                self._sending.release()
        else:
            self._flush_pending = True
            self._io_loop.call_later(self.flush_interval, self._flush_later)

    def _setup_stream_redirects(self, name: str) -> None:
        self._capture = self._make_capture(getattr(sys, f"__{name}__").fileno(), self._take)


def _drained(written: deque[tuple[dict[str, Any], str]]) -> Iterator[tuple[dict[str, Any], str]]:
    while True:
        try:
            yield written.popleft()
        except IndexError:
            return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def attribute_threads(shell: Any) -> None:
    """Let a thread's output belong to the cell that started it, a pool's to the one that asked."""
    parents: dict[int, Any] = {}
    threads: Any = threading.Thread
    pools: Any = ThreadPoolExecutor
    start, bootstrap, submit = threads.start, threads._bootstrap_inner, pools.submit

    @functools.wraps(start)
    def start_with_parent(thread: threading.Thread) -> None:
        parents[id(thread)] = shell.get_parent()
        try:
            start(thread)
        except BaseException:
            parents.pop(id(thread), None)
            raise

    @functools.wraps(bootstrap)
    def bootstrap_with_parent(thread: threading.Thread) -> None:
        parent = parents.pop(id(thread), None)
        if parent:
            shell.set_thread_parent(parent)
        bootstrap(thread)

    @functools.wraps(submit)
    def submit_with_parent(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **options: Any
    ) -> Any:
        parent = shell.get_parent()

        def run(*args: Any, **options: Any) -> Any:
            tokens = shell.set_thread_parent(parent)
            try:
                return function(*args, **options)
            finally:
                shell.reset_thread_parent(tokens)

        return submit(pool, run, *args, **options)

    threads.start, threads._bootstrap_inner = start_with_parent, bootstrap_with_parent
    pools.submit = submit_with_parent
