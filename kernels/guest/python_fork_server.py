"""Forks Python kernels into running boxes: they start with everything imported.

    python -B python_fork_server.py CONTROL_FD '{"imports": [...], "site_packages": DIR}'

A request is one packet on the control socket with the descriptors [reply, body, init, *groups]. It
is read by a child that was forked before and serves this request alone: this process reads none,
so nothing of one sandbox is in the memory that kernels of others are made of.

The child says `{}` first, enters the box, gives up its rights and forks twice inside, since only a
process whose parent has ended there is adopted by the box's init. The kernel then says `{"pid"}` on
the reply socket and goes on when it is told so, or `{"cold": reason}` when it would not be what a
fresh process is.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path[:] = [
        entry for entry in sys.path if entry not in ("", os.path.dirname(os.path.abspath(__file__)))
    ]

import builtins
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import signal
import socket
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
MAX_FDS = 16
GONE = 3
"""How a child ends that has seen the service go."""
READ_LATER = (
    "faulthandler", "ipykernel.debugger", "IPython.core.completerlib", "IPython.core.debugger",
    "IPython.core.logger", "IPython.core.oinspect", "IPython.extensions.storemagic", "jedi",
    "tornado.platform.asyncio",
)  # fmt: skip
"""What ipykernel and IPython import when a kernel starts, or runs its first cell."""


def _load(name: str) -> ModuleType:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from kernels.guest import python_entering, python_kernel, python_likeness, python_modules
else:
    python_entering = _load("python_entering")
    python_kernel = _load("python_kernel")
    python_likeness = _load("python_likeness")
    python_modules = _load("python_modules")

libc = ctypes.CDLL(None, use_errno=True)


def warm(imports: list[str]) -> set[str]:
    """Import it all; the names of modules that a kernel would not have by itself."""
    for name in READ_LATER:
        _import(name)
    own = set(sys.modules)
    with _as_in_a_kernel():
        for name in imports:
            _import(name)
    return {name.partition(".")[0] for name in set(sys.modules) - own}


@contextlib.contextmanager
def _as_in_a_kernel() -> Iterator[None]:
    """pandas looks when it is imported, and shows fewer columns in a terminal."""
    vars(builtins)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    yield
    del vars(builtins)["get_ipython"]


def _import(name: str) -> None:
    with contextlib.suppress(ImportError):  # an environment of the operator's has what it has
        importlib.import_module(name)


def serve(control: socket.socket, likeness: python_likeness.Likeness) -> list[str] | None:
    """Keep one child waiting for the next request, until the service is gone.

    Returns in a kernel too, with what it would have been started by.
    """
    while True:
        standby = os.fork()
        if standby == 0:
            return attend(control, likeness)
        if _end_of(standby) == GONE:
            return None


def _end_of(child: int) -> int:
    while True:
        ended, status = os.wait()  # also what it leaves on its way into a box
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def attend(control: socket.socket, likeness: python_likeness.Likeness) -> list[str]:
    """Serve one request; returns in the kernel alone."""
    packet, fds, _, _ = socket.recv_fds(control, 16, MAX_FDS)
    if not packet:
        os._exit(GONE)
    control.close()
    reply, (body, init, *groups) = socket.socket(fileno=fds[0]), fds[1:]
    try:
        _tell(reply, {})
        request = json.loads(os.pread(body, os.fstat(body).st_size, 0))
        python_entering.enter(init, groups)
        for fd in fds[1:]:  # the box's own files are looked at before user code runs
            os.close(fd)
        python_entering.lower(request)
        if os.fork() == 0 and os.fork() == 0:
            python_entering.settle(request)
            return become_kernel(reply, request["argv"], likeness)
    except BaseException as error:
        number = getattr(error, "errno", None)
        _tell(reply, {"errno": number, "message": str(error) if number else repr(error)})
    os._exit(0)


def become_kernel(
    reply: socket.socket, argv: list[str], likeness: python_likeness.Likeness
) -> list[str]:
    reason = likeness.differs(argv[0], os.environ)
    _tell(reply, {"cold": reason} if reason else {"pid": os.getpid()})
    if reason or reply.recv(1) != b"g":
        os._exit(0)
    reply.close()
    os.closerange(3, 1 << 30)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    likeness.assume(argv)
    return argv


def _tell(reply: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # who asked has gone
        reply.send(json.dumps(message).encode())


def main() -> None:
    control, options = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    control.set_inheritable(False)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.disable()  # imports leave a megabyte to collect, which takes a sixth of the whole start
    likeness = python_likeness.Likeness(options["site_packages"], warm(options["imports"]))
    modules = python_modules.Modules()
    gc.freeze()
    gc.enable()
    control.send(b"ready")
    argv = serve(control, likeness)
    if argv is not None:
        python_kernel.end(python_kernel.main(argv[3:], likeness.differs, modules))


if __name__ == "__main__":
    main()
