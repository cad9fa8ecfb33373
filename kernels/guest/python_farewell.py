"""`os._exit` in a kernel: what was printed before it still arrives.

Loaded by path inside the kernel's process.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

import zmq

PATIENCE = 2.0
WATCHED = re.compile(r"^tfd:\s*(\d+) events:\s*([0-9a-f]+)", re.MULTILINE)
TO_WRITE = 4
"""EPOLLOUT, of epoll(7)."""


def install(iopub: zmq.Socket[Any]) -> None:
    """In this process alone: a forked child ends as it always did."""
    os._exit = _after_last_words(os._exit, iopub, os.getpid())  # type: ignore[assignment]


def _after_last_words(
    end: Callable[[int], NoReturn], iopub: zmq.Socket[Any], kernel: int
) -> Callable[[int], NoReturn]:
    def _exit(status: int) -> NoReturn:
        if os.getpid() == kernel:
            with suppress(Exception):  # whatever is broken by now, the process ends
                sys.stdout.flush()
                sys.stderr.flush()
                send_out(iopub)
        end(status)

    return _exit


def send_out(iopub: zmq.Socket[Any]) -> None:
    """Wait until what was handed to a ZeroMQ socket before has been written.

    One IO thread of ZeroMQ's serves all sockets in the order they were used: when it has carried a
    message of ours to ourselves, it has begun to write what came before that. It has ended when it
    does not watch for room to write any more; ZeroMQ tells nobody, so /proc is asked.
    """
    deadline = time.monotonic() + PATIENCE
    _carry(iopub.context)
    path = iopub.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("ipc://")
    while _is_writing(path) and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_writing(path: str) -> bool:
    return any(_bound_to(fd) == path for fd in _wait_for_room())


def _wait_for_room() -> Iterator[int]:
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(entry.path) == "anon_inode:[eventpoll]":
                with open(f"/proc/self/fdinfo/{entry.name}") as file:
                    found = WATCHED.findall(file.read())
                yield from (int(fd) for fd, events in found if int(events, 16) & TO_WRITE)


def _bound_to(fd: int) -> object:
    with socket.socket(fileno=os.dup(fd)) as watched:
        return watched.getsockname()


def _carry(context: zmq.Context[Any]) -> None:
    name = f"ipc://@cellshell-{os.urandom(16).hex()}"
    with context.socket(zmq.PAIR) as far, context.socket(zmq.PAIR) as near:
        near.linger = far.linger = 0
        far.bind(name)
        near.connect(name)
        near.send(b"")
        far.poll(PATIENCE * 1000)
