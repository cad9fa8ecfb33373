"""What programs write to a descriptor of the kernel, by the cell that started them.

The descriptor is a pipe. A cell that begins while earlier programs still run gets a new one, so
that theirs goes on belonging to the cells they were started in. Loaded by path inside the kernel's
process: nothing beside the standard library may be imported here.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Callable
from typing import Any

MAX_COLLECTED = 16 * 1024 * 1024
MAX_PIPES = 64

Header = dict[str, Any]


class _Pipe:
    def __init__(self, descriptor: int, parent: Header) -> None:
        self.descriptor = descriptor
        self.parent = parent
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str:
        """What is there now, without waiting; empty: nothing."""
        ready = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]
        return self._decoder.decode(os.read(self.descriptor, ready)) if ready else ""


class Capture:
    """Hands all that arrives to `take`, in a thread of its own or at once with `collect`."""

    def __init__(self, descriptor: int, take: Callable[[Header, str], None]) -> None:
        self.descriptor = descriptor
        self._take = take
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._pipes: dict[int, _Pipe] = {}
        self._current = self._open({})
        threading.Thread(target=self._watch, name=f"capture {descriptor}", daemon=True).start()

    def begin(self, parent: Header, *, apart: bool) -> None:
        """A cell begins; `apart`: programs of earlier ones may still write."""
        with self._lock:
            self._collect()
            if apart and len(self._pipes) < MAX_PIPES:
                self._current = self._open(parent)
            else:
                self._current.parent = parent

    def collect(self) -> None:
        with self._lock:
            self._collect()

    def forget(self) -> None:
        """In a forked child: the thread is not there, and the lock may have been held."""
        self._lock = threading.Lock()

    def _collect(self) -> None:
        for pipe in list(self._pipes.values()):
            collected = 0
            while collected < MAX_COLLECTED and (text := pipe.read()):
                collected += len(text)
                self._take(pipe.parent, text)

    def _open(self, parent: Header) -> _Pipe:
        reading, writing = os.pipe()
        os.dup2(writing, self.descriptor)
        os.close(writing)
        pipe = self._pipes[reading] = _Pipe(reading, parent)
        self._epoll.register(reading, select.EPOLLIN)
        return pipe

    def _watch(self) -> None:
        while True:
            events = self._epoll.poll()
            with self._lock:
                self._collect()
                for descriptor, event in events:
                    if event & select.EPOLLHUP:
                        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        pipe = self._pipes.pop(descriptor, None)
        if pipe is not None:
            self._collect_last(pipe)
            self._epoll.unregister(descriptor)
            os.close(descriptor)

    def _collect_last(self, pipe: _Pipe) -> None:
        while text := pipe.read():
            self._take(pipe.parent, text)


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
