"""The process that forks Python kernels into boxes, as the service sees it.

It has imported what kernels import, so that a kernel is there in a fraction of the time, and most
of its memory is shared. It is started in the background, again when it has ended, and anew when
packages of its environment have changed; while it is not ready, kernels are started without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

from interpreter import python_environment, seccomp, walls
from interpreter.box import Box
from interpreter.box_process import BoxProcess
from interpreter.launching import end_of, tail
from interpreter.python_environment import PythonEnvironment
from interpreter.settings import Settings

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
ANSWER_TIMEOUT = 10.0
RETRY_SECONDS = 30.0
"""How long after a start that failed the next one is tried."""
CACHE_INSIDE = "/var/tmp/cellshell"
MAX_ANSWER = 64 * 1024
INIT_ADOPTS = 2
"""The version of init from which on it adopts what was forked elsewhere."""


class ForkServer:
    """Kernels of one environment. `start` and `close` are its owner's to call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = PythonEnvironment.read(settings.python_home.absolute())
        self._log = settings.runtime / "fork-server.log"
        self._filter = _filter()
        self._starting: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._packages = 0
        self._not_before = 0.0
        self.forked = 0
        self.cold: Counter[str] = Counter()
        """Kernels started without it, by the first word of the reason."""

    @property
    def bound(self) -> list[str]:
        """What a box must see under its own path for the kernels to be at home there."""
        return [] if os.geteuid() == 0 else [str(self._environment.path)]

    @property
    def state(self) -> Literal["ready", "starting", "failed"]:
        if self._control is not None:
            return "ready"
        return "starting" if self._starting and not self._starting.done() else "failed"

    @property
    def pid(self) -> int | None:
        """Of its process group."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """In the background, unless it runs or has just failed."""
        soon = asyncio.get_running_loop().time() < self._not_before
        if not soon and (self._starting is None or self._starting.done()):
            self._starting = asyncio.create_task(self._start(), name="fork server")

    async def started(self) -> bool:
        """Wait for the start; whether it came up."""
        if self._starting is not None:
            await asyncio.wait({self._starting})
        return self._control is not None

    async def close(self) -> None:
        """Kernels that it has forked are not its own, and run on."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        await self._end()

    async def fork(
        self, box: Box, argv: Sequence[str], *, env: Mapping[str, str], cwd: str, name: str
    ) -> BoxProcess | None:
        """A kernel in the box; None when it has to be started without this.

        Raises OSError as fork(2) would.
        """
        reason = self._unready(box)
        if reason is None:
            request = {"argv": list(argv), "env": dict(env), "cwd": cwd}
            found = await self._fork(box, request, name)
            if isinstance(found, BoxProcess):
                self.forked += 1
                return found
            reason = found
        self.cold[reason.partition(":")[0]] += 1
        log.info("a kernel is started without the fork server: %s", reason)
        return None

    def _unready(self, box: Box) -> str | None:
        if box.init_version < INIT_ADOPTS:
            return "version"
        if self._control is None:
            self.start()
            return "starting"
        if self._packages != self._packages_now():
            self.start()
            return "packages"
        return None

    async def _fork(self, box: Box, request: Mapping[str, object], name: str) -> BoxProcess | str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            with theirs:
                if not self._send(theirs, box, request):
                    return "busy"
            if not await self._is_taken(ours):
                log.warning("the fork server takes no request: it is started anew")
                self.start()
                return "silent"
            # From here on it is up to the box, whose code may stop what enters it.
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    return await self._adopt(ours, box, name)
            except TimeoutError:
                return "stopped"

    async def _is_taken(self, reply: socket.socket) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return bool(await asyncio.get_running_loop().sock_recv(reply, MAX_ANSWER))
        return False

    async def _adopt(self, reply: socket.socket, box: Box, name: str) -> BoxProcess | str:
        loop = asyncio.get_running_loop()
        answer = await loop.sock_recv(reply, MAX_ANSWER)
        if not answer:
            return "ended"
        told = json.loads(answer)
        if "cold" in told:
            return str(told["cold"])
        if "pid" not in told:
            if told["errno"] is None:
                log.warning("the fork server failed: %s", told["message"])
                return "failed"
            raise OSError(told["errno"], told["message"])
        result, handed = await box.begin("adopt", pid=told["pid"], name=name)
        process = box.adopt(result["pid"], handed)
        with suppress(OSError):  # it has ended meanwhile, as its exit tells
            reply.send(b"g")
        return process

    def _send(self, reply: socket.socket, box: Box, request: Mapping[str, object]) -> bool:
        """Nothing of it stays with the server: a child of its reads the request."""
        assert self._control is not None
        request = {
            **request,
            "uid": walls.BOX_UID,
            "rlimits": box.plan.rlimits,
            "filter": self._filter.hex(),
        }
        with ExitStack() as ours:
            body = os.memfd_create("request")
            ours.callback(os.close, body)
            os.write(body, json.dumps(request).encode())
            fds = [reply.fileno(), body, os.pidfd_open(box.host_pid)]
            ours.callback(os.close, fds[-1])
            for path in box.joins:
                fds.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
                ours.callback(os.close, fds[-1])
            try:
                socket.send_fds(self._control, [b"fork"], fds)
            except BlockingIOError:
                return False
        return True

    # The process

    async def _start(self) -> None:
        await self._end()
        packages = self._packages_now()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                self._process = self._launch(theirs)
            async with asyncio.timeout(START_TIMEOUT):
                ready = await asyncio.get_running_loop().sock_recv(ours, 16)
        except BaseException as error:
            ours.close()
            self._failed(error)
            await self._end()
            if not isinstance(error, (OSError, TimeoutError)):
                raise
            return
        if not ready:
            ours.close()
            self._failed(tail(self._log))
            await self._end()
            return
        self._packages, self._control = packages, ours
        asyncio.get_running_loop().add_reader(ours, self._gone)

    def _failed(self, why: object) -> None:
        self._not_before = asyncio.get_running_loop().time() + RETRY_SECONDS
        if not isinstance(why, asyncio.CancelledError):
            log.warning("the fork server does not start, kernels start without it: %s", why)

    def _launch(self, control: socket.socket) -> subprocess.Popen[bytes]:
        words, where, cached = self._command(self._cache())
        options = {
            "imports": self._settings.fork_server_imports,
            "site_packages": self._environment.site_packages(where),
        }
        with self._log.open("wb") as output:
            return subprocess.Popen(
                [*words, str(control.fileno()), json.dumps(options)],
                env={
                    "HOME": walls.INSIDE.home,
                    "LANG": "C.UTF-8",
                    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                    "MPLCONFIGDIR": cached,
                    "PATH": "/usr/bin:/bin",
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(control.fileno(),),
                start_new_session=True,
            )

    def _cache(self) -> Path:
        """Where matplotlib keeps its list of fonts, which takes it seconds to make."""
        path = self._environment.path
        for cache in (path.with_name(f"{path.name}.cache"), self._settings.home / "cache"):
            with suppress(OSError):
                cache.mkdir(mode=0o700, exist_ok=True)
                if os.access(cache, os.W_OK):
                    return cache
        return self._settings.runtime

    def _command(self, cache: Path) -> tuple[list[str], str, str]:
        """What starts it; where it sees the environment, and the cache.

        Root sees the system as boxes do, so that a kernel's modules are where it says they are.
        Others may not leave the namespaces of the service if they want to enter those of boxes:
        there a box has the environment under the path it has outside, too.
        """
        if os.geteuid() != 0:
            program = str(walls.KERNEL_GUEST / "python_fork_server.py")
            where = str(self._environment.path)
            return [f"{where}/bin/python", "-B", program], where, str(cache)
        where = python_environment.INSIDE
        mounts = python_environment.mounts(self._settings)
        mounts.append((str(walls.KERNEL_GUEST), walls.INSIDE.kernel_guest))
        binds = [word for source, inside in mounts for word in ("--ro-bind", source, inside)]
        bwrap = [
            *(walls.bwrap_program(), *walls.system_words()),
            *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/"),
            *binds,
            *("--bind", str(cache), CACHE_INSIDE, "--"),
        ]
        program = f"{walls.INSIDE.kernel_guest}/python_fork_server.py"
        return [*bwrap, f"{where}/bin/python", "-B", program], where, CACHE_INSIDE

    def _gone(self) -> None:
        """It says nothing after `ready`: readable means that it has ended."""
        self._let_go()
        log.warning("the fork server has ended: it is started again")
        self.start()

    def _let_go(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None

    async def _end(self) -> None:
        self._let_go()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await end_of(self._process)
            self._process = None

    def _packages_now(self) -> int:
        """Changes whenever a package is put there or taken away."""
        directory = self._environment.site_packages(str(self._environment.path))
        return os.stat(directory).st_mtime_ns


def _filter() -> bytes:
    architecture = seccomp.here()
    return seccomp.assemble(seccomp.program(architecture)) if architecture else b""
