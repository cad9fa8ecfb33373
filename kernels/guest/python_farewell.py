"""`os._exit` in a kernel: what was printed before it still arrives.

Loaded by path inside the kernel's process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import zmq

PATIENCE_MS = 2000


def install(context: zmq.Context[Any]) -> None:
    """In this process alone: a forked child ends as it always did."""
    os._exit = _after_last_words(os._exit, context, os.getpid())  # type: ignore[assignment]


def _after_last_words(
    end: Callable[[int], NoReturn], context: zmq.Context[Any], kernel: int
) -> Callable[[int], NoReturn]:
    def _exit(status: int) -> NoReturn:
        if os.getpid() == kernel:
            with suppress(Exception):  # whatever is broken by now, the process ends
                sys.stdout.flush()
                sys.stderr.flush()
                send_out(context)
        end(status)

    return _exit


def send_out(context: zmq.Context[Any]) -> None:
    """Wait until what was handed to ZeroMQ before has been written to its sockets.

    One IO thread of ZeroMQ's serves all sockets in the order they were used: when it has carried a
    message of ours to ourselves, it has written what came before that.
    """
    name = f"ipc://@cellshell-{os.urandom(16).hex()}"
    with context.socket(zmq.PAIR) as far, context.socket(zmq.PAIR) as near:
        near.linger = far.linger = 0
        far.bind(name)
        near.connect(name)
        near.send(b"")
        far.poll(PATIENCE_MS)
