"""IPython's shell in our kernel: how a cell exits, is interrupted, runs programs and pages.

Loaded by path inside the kernel's process.
"""

# mypy: disable-error-code="no-untyped-call, union-attr, attr-defined"
from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core import page, ultratb
from IPython.core.autocall import ZMQExitAutocall
from IPython.utils.process import system
from traitlets import default


class Exit(SystemExit):
    """Raised by `exit()` and `quit()`: uncaught, it ends the kernel after the reply."""


class Exiter(ZMQExitAutocall):
    def __call__(self, code: Any = None) -> None:
        raise Exit(code)


class Twice:
    """What is asked of it twice in a row, about the same cell, is found once."""

    def __init__(self, find: Callable[..., Any]) -> None:
        self._find = find
        self._last: tuple[object, Any] | None = None

    def __call__(self, cell: object, *args: Any, **options: Any) -> Any:
        last, self._last = self._last, None
        if last is not None and last[0] is cell:
            return last[1]
        found = self._find(*args, **options) if args else self._find(cell, **options)
        self._last = (cell, found)
        return found


class Shell(ZMQInteractiveShell):
    """IPython's shell, with an `exit()` that ends the cell too.

    ipykernel transforms each cell and compiles it to see whether it awaits something, and then has
    IPython do both again: a tenth of the time of a small one.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._transform = Twice(super().transform_cell)
        self._awaits = Twice(super().should_run_async)
        super().__init__(*args, **options)

    def transform_cell(self, raw_cell: str) -> str:
        cell: str = self._transform(raw_cell)
        return cell

    def should_run_async(self, raw_cell: str, **options: Any) -> bool:
        return bool(self._awaits(options.get("transformed_cell"), raw_cell, **options))

    @default("exiter")
    def _default_exiter(self) -> Exiter:
        return Exiter(self)

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if isinstance(error, Exit):
            self.kernel.exit_code = _exit_code(error.code)
        else:
            self.kernel.interrupts.hide(error)
            super().showtraceback(exc_tuple, *args, **options)

    def system_piped(self, cmd: str) -> None:
        """As IPython's, but a program that reads its input meets the end of it at once: nobody is
        there to type."""
        if cmd.rstrip().endswith("&"):
            super().system_piped(cmd)
        command = self.var_expand(cmd, depth=1)
        self.user_ns["_exit_code"] = system(f"exec </dev/null; {command}")

    system = system_piped

    def payloadpage_page(self, strg: Any, start: int = 0, *_: Any, **__: Any) -> None:
        """What `name?` tells is an output like any other: results have no pager."""
        page.display_page(strg, max(0, start))

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> Any:
        if self.kernel.interrupts.take():
            code_obj, async_ = compile("raise KeyboardInterrupt", "<interrupt>", "exec"), False
        return await super().run_code(code_obj, result, async_=async_)


def length_of_source(frame: FrameType) -> int:
    """Lines of the cell or file of a frame.

    IPython 9 looks for a file, and where there is none it shows the line that the frame is at now,
    not the one that raised: the two differ behind `except` and `finally`. A cell has no file.
    """
    known = linecache.cache.get(frame.f_code.co_filename, ())
    return len(known[2]) if len(known) > 2 else _length_of_file(frame)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0) & 0xFF
    return 1


_length_of_file: Any = getattr(ultratb, "get_line_number_of_frame", None)
ultratb.get_line_number_of_frame = length_of_source
Exit.__name__ = Exit.__qualname__ = "SystemExit"
