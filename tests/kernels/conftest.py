"""Real kernels in real processes, on this machine instead of in a box."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import zmq
from jupyter_client.kernelspec import KernelSpec

import kernels
from kernels.kernel import Kernel

GUEST = Path(kernels.__file__).parent / "guest" / "python_kernel.py"


class LocalProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        return await self._process.wait()

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)


class LocalPlace:
    """Processes of this machine; whatever they leave behind is killed with `close`."""

    uid = None

    def __init__(self, sockets: Path) -> None:
        self.sockets = sockets
        self.inside_sockets = str(sockets)
        self.processes: list[LocalProcess] = []
        self.groups: list[int] = []
        self.spawned = asyncio.Event()

    async def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> LocalProcess:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.groups.append(process.pid)
        self.spawned.set()
        self.processes.append(LocalProcess(process))
        return self.processes[-1]

    def close(self) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="session")
def kernel_python() -> str:
    python = os.environ.get("CELLSHELL_TEST_PYTHON")
    if not python:
        pytest.skip("CELLSHELL_TEST_PYTHON names no Python that has ipykernel")
    return python


@pytest.fixture(scope="session")
def zmq_context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture(scope="session")
def python_spec(kernel_python: str) -> KernelSpec:
    return KernelSpec(
        argv=[kernel_python, "-B", str(GUEST), "-f", "{connection_file}"],
        language="python",
        interrupt_mode="signal",
        env={},
    )


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlace]:
    place = LocalPlace(tmp_path_factory.mktemp("k"))
    yield place
    place.close()


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlace]:
    place = LocalPlace(tmp_path_factory.mktemp("k"))
    yield place
    place.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of kernels, and where shared ones start."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    """What a kernel starts with: nothing of the tests' own."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


StartKernel = Callable[..., Awaitable[Kernel]]


@asynccontextmanager
async def starting(
    spec: KernelSpec,
    place: LocalPlace,
    context: zmq.Context[Any],
    environment: dict[str, str],
    cwd: Path,
) -> AsyncIterator[StartKernel]:
    started: list[Kernel] = []

    async def start(
        *, spec: KernelSpec = spec, env: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> Kernel:
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        kernel = Kernel(spec, place, context, **callbacks)
        started.append(kernel)
        at = str(options.pop("cwd", cwd))
        await kernel.start(env={**environment, **env}, cwd=at, **options)
        return kernel

    yield start
    for kernel in started:
        await kernel.shutdown(now=True)


@pytest.fixture
async def start_kernel(
    python_spec: KernelSpec,
    place: LocalPlace,
    zmq_context: zmq.Context[Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> AsyncIterator[StartKernel]:
    async with starting(python_spec, place, zmq_context, environment, tmp_path) as start:
        yield start


@pytest.fixture
async def own_kernel(start_kernel: StartKernel) -> Kernel:
    """A kernel that a test may break."""
    return await start_kernel()


@pytest.fixture(scope="module")
async def kernel(
    python_spec: KernelSpec,
    shared_place: LocalPlace,
    zmq_context: zmq.Context[Any],
    environment: dict[str, str],
    home: Path,
) -> AsyncIterator[Kernel]:
    """A kernel that the tests of a module share."""
    async with starting(python_spec, shared_place, zmq_context, environment, home) as start:
        yield await start()
