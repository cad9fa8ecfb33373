"""Cellshell's Python kernel: ipykernel, faster, and part of its session's environment.

    python -B python_kernel.py -f CONNECTION_FILE [--page FILE] [--private JSON]

Nothing of ours can be imported by user code: this runs as `__main__`, whose name IPython gives to
the user's module, and the files beside it are loaded by path and never registered.
"""

# ruff: noqa: E402
# mypy: disable-error-code="no-untyped-call, union-attr, attr-defined"
from __future__ import annotations

import os
import sys


def _clear_import_path() -> None:
    """A user's `random.py` or `zmq.py` must not get into the start of their own kernel."""
    here = os.path.dirname(os.path.abspath(__file__))
    python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    unwanted = {"", here, os.getcwd(), *(os.path.abspath(entry) for entry in python_path if entry)}
    sys.path[:] = [entry for entry in sys.path if entry not in unwanted]


if __name__ == "__main__":
    _clear_import_path()

import asyncio
import atexit
import importlib.util
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from ipykernel import kernelapp
from ipykernel.ipkernel import IPythonKernel
from IPython.core.events import EventManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def _load(name: str) -> ModuleType:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from kernels.guest import (
        python_capture,
        python_environment,
        python_farewell,
        python_interrupts,
        python_messages,
        python_modules,
        python_outbox,
        python_profile,
        python_shell,
        python_streams,
        python_variables,
    )
else:
    python_capture = _load("python_capture")
    python_environment = _load("python_environment")
    python_farewell = _load("python_farewell")
    python_interrupts = _load("python_interrupts")
    python_messages = _load("python_messages")
    python_modules = _load("python_modules")
    python_outbox = _load("python_outbox")
    python_profile = _load("python_profile")
    python_shell = _load("python_shell")
    python_streams = _load("python_streams")
    python_variables = _load("python_variables")

INSIST_SECONDS = 0.05
INSISTENCE = 20
SEND_QUEUE = 100_000
"""Messages that wait in this process for a service that is slow; ZeroMQ drops beyond it."""
FEATURE = "cellshell"
Differs = Callable[[str, Mapping[str, str]], "str | None"]
"""Why a process of this executable with these variables, started now, would be another; or none."""


class NoSubshells:
    """Stands for the thread that reads the shell channel; without it a cell needs no thread hop."""

    parent_thread = threading.main_thread()

    def __bool__(self) -> bool:
        return False


class Kernel(IPythonKernel):
    """Reads the environment before each cell and tells what the cell changed."""

    shell_class = python_shell.Shell

    def __init__(self, **options: Any) -> None:
        self.exit_code: int | None = None
        self.differs: Differs
        self.environment: python_environment.Environment
        self.interrupts: python_interrupts.Interrupts = options["parent"].interrupts
        self.outbox: python_outbox.Outbox = options["parent"].outbox
        self.packer: python_messages.Packer
        self._repeated = False
        self._report: dict[str, str] = {}
        self._replied = True
        super().__init__(**options)
        self._execute_sleep = 0
        self.shell_channel_thread = NoSubshells()
        self.control_handlers["assign_request"] = self.assign_request
        self.control_handlers["variables_request"] = self.variables_request
        self.control_handlers["replay_request"] = self.replay_request

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    @property
    def kernel_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super().kernel_info
        info["supported_features"] = [*info["supported_features"], FEATURE]
        return info

    def set_parent(self, ident: Any, parent: Any, channel: str = "shell") -> None:
        if channel == "shell":
            is_run = parent["header"]["msg_type"] == "execute_request"
            self._repeated = is_run and not self.outbox.is_new(parent["header"]["msg_id"])
            if self._repeated:
                return
            self.packer.begin(parent["header"])
            apart = python_capture.has_children()
            self._stdout.begin(parent, apart=apart)
            self._stderr.begin(parent, apart=apart)
        super().set_parent(ident, parent, channel)

    def pre_handler_hook(self) -> None:
        self.saved_sigint_handler = self.interrupts.install()

    def _send_interrupt_children(self) -> None:
        situation = self.interrupts.situation()
        super()._send_interrupt_children()
        if situation is not None:
            self._insist(situation, INSISTENCE)

    def _insist(self, situation: tuple[int, int], times: int) -> None:
        def again() -> None:
            if self.interrupts.insist(situation):
                self._insist(situation, times - 1)

        if times:
            self.control_thread.io_loop.call_later(INSIST_SECONDS, again)

    def _cancel_on_sigint(self, future: Any) -> Any:
        return self.interrupts.cancelling(future)

    async def dispatch_shell(self, *args: Any, **options: Any) -> None:
        await super().dispatch_shell(*args, **options)
        if self.exit_code is not None:
            self.io_loop.add_callback(self.io_loop.stop)

    def should_handle(self, stream: Any, msg: Any, idents: Any) -> bool:
        """Not what came before, and is asked for again by a service that was away."""
        return not self._repeated

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        self._replied = False
        self._report = {}
        try:
            await super().execute_request(stream, ident, parent)
        except (Exception, KeyboardInterrupt, asyncio.CancelledError) as error:
            # Whatever user code has broken: who asked gets an answer.
            if self._replied:
                raise
            self._reply_with(error, stream, ident, parent)

    async def do_execute(self, *args: Any, **options: Any) -> dict[str, Any]:
        try:
            content: dict[str, Any] = await super().do_execute(*args, **options)
            return content
        finally:
            self._take_back_streams()

    def init_metadata(self, parent: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = super().init_metadata(parent)
        call = parent.get("metadata")
        call = call.get(FEATURE) if isinstance(call, dict) else None
        if isinstance(call, dict):
            with self.iopub_thread.alone():
                self.outbox.seen(call.get("seen"))
        self.environment.before(call)
        return metadata

    def finish_metadata(self, parent: Any, metadata: Any, reply_content: Any) -> dict[str, Any]:
        report = self.environment.after() or {}
        if self.exit_code is not None:
            report["exit"] = self.exit_code
        self._report = {FEATURE: json.dumps(report)} if report else {}
        self._replied = True
        finished = super().finish_metadata(parent, metadata, reply_content)
        return {**finished, **self._report}

    def _reply_with(self, error: BaseException, stream: Any, ident: Any, parent: Any) -> None:
        content = {
            "status": "error",
            "ename": type(error).__name__,
            "evalue": "",
            "traceback": [],
            "execution_count": self.execution_count,
            "user_expressions": {},
            "payload": [],
        }
        metadata = self.finish_metadata(parent, {}, content)
        self.session.send(stream, "execute_reply", content, parent, metadata=metadata, ident=ident)

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """Idle carries the report too: the service sees it, whoever sent the cell."""
        if self._repeated and channel == "shell":
            return
        report = self._report if status == "idle" and channel == "shell" else None
        self.session.send(
            self.iopub_socket,
            "status",
            {"execution_state": status},
            parent=parent or self.get_parent(channel),
            ident=self._topic("status"),
            metadata=report,
        )

    def _take_back_streams(self) -> None:
        """Send what is buffered in any stream; replace one the cell has closed."""
        for name, ours in (("stdout", self._stdout), ("stderr", self._stderr)):
            try:
                getattr(sys, f"__{name}__").flush()
                present = getattr(sys, name)
                if present is not ours:
                    present.flush()
                closed = present.closed
            except Exception:  # the user's object may raise whatever it likes
                closed = True
            if closed:
                setattr(sys, name, ours)
            ours.flush()

    async def variables_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """On the control channel, so that it answers while a cell runs."""
        names = self.shell.user_ns
        variables = python_variables.describe(names, self.shell.user_ns_hidden)
        content = {"status": "ok", "variables": variables}
        self.session.send(stream, "variables_reply", content, parent, ident)

    async def assign_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """On the control channel: whose this kernel is, which was made for nobody.

        An error when it cannot be what it would be if it had been started now.
        """
        self.place(parent["content"]["arguments"])
        reason = self.differs(sys.executable, self.environment.given)
        content = {"status": "error", "evalue": reason} if reason else {"status": "ok"}
        self.session.send(stream, "assign_reply", content, parent, ident)

    def place(self, arguments: list[str]) -> None:
        """Take the place in a session that words of the command line tell of."""
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        private = json.loads(options.get("--private", "{}"))
        self.environment = python_environment.Environment(options.get("--page"), private)
        time.tzset()
        self.shell.starting_dir = os.getcwd()
        self.shell.user_ns["_dh"][:] = [self.shell.starting_dir]

    async def replay_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """On the control channel: what was said since a service was last here."""
        after = parent["content"].get("after")
        with self.iopub_thread.alone():
            told, frames = self.outbox.after(after if isinstance(after, int) else 0)
        content = {"status": "ok", "execution_count": self.execution_count - 1, **told}
        self.session.send(stream, "replay_reply", content, parent, ident, buffers=frames)


class App(kernelapp.IPKernelApp):
    """Starts the kernel without the thread of the shell channel, history and user start-up code."""

    kernel_class = Kernel

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        user_code = {InteractiveShell.run_code.__code__, EventManager.trigger.__code__}
        self.interrupts = python_interrupts.Interrupts(user_code)
        self.outbox = python_outbox.Outbox()

    def parse_command_line(self, argv: Any = None) -> None:
        """Nothing: the connection file is all there is, and parsing costs 10 ms."""

    def log_connection_info(self) -> None:
        """Nothing: it is printed, and would be found in the output of the first cell."""
        channels = ("shell", "iopub", "stdin", "hb", "control")
        self._ports = {name: getattr(self, f"{name}_port") for name in channels}

    def init_control(self, context: Any) -> None:
        super().init_control(context)
        self.shell_channel_thread.io_loop.close()
        self.shell_channel_thread = None

    def init_iopub(self, context: Any) -> None:
        context.sndhwm = SEND_QUEUE
        super().init_iopub(context)
        del context.sndhwm

    def init_io(self) -> None:
        self.set_trait("outstream_class", None)
        for handler in self.log.handlers:
            handler.setStream(os.fdopen(os.dup(2), "w"))  # the log is not the user's output
        self.log.setLevel(self.log_level)  # each message would be made, and dropped by its handler
        super().init_io()
        make = partial(
            python_streams.Stream,
            self.session,
            self.iopub_thread,
            interrupts=self.interrupts,
            capture=python_capture.Capture,
        )
        sys.stdout, sys.stderr = make("stdout"), make("stderr")


def start(arguments: list[str], differs: Differs, modules: python_modules.Modules | None) -> int:
    """Run a kernel in this process until it is shut down; the exit code."""
    warnings.filterwarnings("ignore", message="To exit: use")
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.Session.digest_history_size = 0
    settings.InteractiveShellApp.exec_PYTHONSTARTUP = False
    connection_file = arguments[arguments.index("-f") + 1]
    app = App.instance(config=settings, connection_file=connection_file)
    publisher: Any = partial(python_streams.Publisher, interrupts=app.interrupts, outbox=app.outbox)
    kernelapp.IOPubThread = publisher
    with python_profile.place(), modules.hidden() if modules else nullcontext():
        app.initialize([])
    if modules:
        modules.tell(app.kernel)
    app.session.pack = app.kernel.packer = python_messages.Packer(app.session.pack)
    app.session.serialize = python_messages.SmallMessages(app.session, app.outbox.reply)
    app.kernel.differs = differs
    app.kernel.place(arguments)
    python_streams.attribute_threads(app.kernel.shell)
    sys.path.insert(0, "")
    python_farewell.install(app.iopub_thread.socket)
    app.start()
    return app.kernel.exit_code or 0


def end(code: int) -> NoReturn:
    """A kernel that was told to end does not wait for what its threads may never finish."""
    waits_for = (thread for thread in threading.enumerate() if not thread.daemon)
    if all(thread is threading.main_thread() for thread in waits_for):
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code)


def main(
    arguments: list[str], differs: Differs, modules: python_modules.Modules | None = None
) -> int:
    """`modules` are those that had been loaded before a fork."""
    os.environ.pop("JPY_PARENT_PID", None)
    sys.argv = [""]
    return start(arguments, differs, modules)


if __name__ == "__main__":
    end(main(sys.argv[1:], lambda *_: "it was started, and not forked"))
