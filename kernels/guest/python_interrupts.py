"""Where an interrupt of a Python kernel takes effect.

Loaded by path inside the kernel's process: nothing beside the standard library may be imported.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Interrupts:
    """SIGINT raises KeyboardInterrupt where user code runs, and nowhere else.

    Raised between the end of a cell and its reply it would lose the reply; raised while output is
    being sent, the output.
    """

    def __init__(self, interruptible: set[CodeType]) -> None:
        self._interruptible = interruptible
        self._main = threading.get_ident()
        self._held = 0
        self._cancelling: Callable[[int, FrameType | None], None] | None = None
        self.pending = False
        self._seen = 0
        self._cells = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._seen += 1
        if self._held or not self._in_user_code(frame):
            self.pending = True
            return
        self.pending = False
        raise KeyboardInterrupt

    def hide(self, error: BaseException | None) -> None:
        """Cut the frame that raised it off the end of a traceback: it is not the user's."""
        at = error.__traceback__ if error else None
        while at is not None and at.tb_next is not None:
            if at.tb_next.tb_frame.f_code is Interrupts.__call__.__code__:
                at.tb_next = None
            at = at.tb_next

    def install(self) -> Any:
        """For the cell that begins."""
        self._cells += 1
        self.pending = False
        return signal.signal(signal.SIGINT, self)

    @contextmanager
    def cancelling(self, task: asyncio.Future[Any]) -> Iterator[None]:
        """While an awaiting cell has no frame to raise in, an interrupt cancels it."""
        loop = asyncio.get_running_loop()

        def handle(signum: int, frame: FrameType | None) -> None:
            self._seen += 1
            if self._held or self._in_user_code(frame):
                self(signum, frame)
            else:
                loop.call_soon_threadsafe(task.cancel)

        saved = signal.signal(signal.SIGINT, handle)
        self._cancelling = handle
        try:
            yield
        finally:
            self._cancelling = None
            signal.signal(signal.SIGINT, saved)

    def situation(self) -> tuple[int, int] | None:
        """The cell that can be interrupted and what it has seen; None: there is none."""
        handler = signal.getsignal(signal.SIGINT)
        return (self._cells, self._seen) if handler in (self, self._cancelling) else None

    def insist(self, before: tuple[int, int]) -> bool:
        """In another thread: signal again, if nothing has come of it. Whether it did.

        A signal between Python's last look for one and a system call does not end that call.
        """
        if self.situation() != before:
            return False
        signal.pthread_kill(self._main, signal.SIGINT)
        return True

    def take(self) -> bool:
        """Whether an interrupt came that was not raised yet."""
        pending, self.pending = self.pending, False
        return pending

    @contextmanager
    def hold(self) -> Iterator[None]:
        if threading.get_ident() != self._main:
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self.pending and not self._held:
                self(signal.SIGINT, sys._getframe())

    def _in_user_code(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code in self._interruptible:
                return True
            frame = frame.f_back
        return False
