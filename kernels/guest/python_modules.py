"""The modules a kernel has from the start, told to it instead of looked up.

ipykernel lists their files for its debugger, and IPython their names for `%reset`, whenever a
kernel is made. That touches two thousand modules: a forked kernel would copy 7 MB of what it shares
with the others. So the lists are made once, before the fork.

Loaded by path inside the kernel's process.
"""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

from ipykernel import ipkernel
from IPython.core import shellapp


class Modules:
    """Those that are loaded now."""

    def __init__(self) -> None:
        found = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        self._files = [file for file in found if file]
        self._names = set(sys.modules)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """ipykernel and IPython find none."""
        ipkernel.sys = shellapp.sys = NoModules()  # type: ignore[assignment]
        try:
            yield
        finally:
            ipkernel.sys = shellapp.sys = sys

    def tell(self, kernel: Any) -> None:
        for name in reversed(sys.modules):  # what the user's startup files have imported
            if name in self._names:
                break
            self._names.add(name)
        kernel.shell._sys_modules_keys = self._names
        kernel._kernel_modules = self._files
        if debugger := getattr(kernel, "debugger", None):
            debugger.kernel_modules = self._files


class NoModules:
    """The module `sys`, as one that has loaded nothing."""

    modules: ClassVar[dict[str, ModuleType]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)
