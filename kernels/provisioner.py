"""jupyter_client's lifecycle of a kernel, in a place."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import zmq
import zmq.asyncio
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from kernels.endpoints import CHANNELS
from kernels.errors import KernelFailed
from kernels.place import Place, PlacedProcess

MAX_SOCKET_PATH = 107
PORTS = {f"{name}_port": number for name, number in CHANNELS.items()}
SHUTDOWN_WAIT = 4.0


class PlaceProvisioner(KernelProvisionerBase):
    """Starts a kernel in a place, whose directory holds its sockets and the file naming them."""

    def __init__(self, place: Place, *, short_id: str, key: bytes, **traits: Any) -> None:
        super().__init__(**traits)
        self.process: PlacedProcess | None = None
        self.exit_code: int | None = None
        self._place = place
        self.prefix = place.sockets / short_id
        self._inside = f"{place.inside_sockets}/{short_id}"
        self._key = key

    @property
    def has_process(self) -> bool:
        return self.process is not None and self.exit_code is None

    async def poll(self) -> int | None:
        return self.exit_code if self.process is not None else 0

    async def wait(self) -> int | None:
        if self.process is not None:
            self.exit_code = await self.process.wait()
        return self.exit_code

    async def send_signal(self, signum: int) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        arguments = kwargs.pop("arguments", ())
        launch = await super().pre_launch(**kwargs)
        # The place's environment is the whole of it; this one would let a kernel judge its parent.
        launch["env"].pop("JPY_PARENT_PID", None)
        self._remove_sockets()
        launch["cmd"] = self._command(f"{self._inside}.json") + list(arguments)
        self._write_connection_file(self._information(self._inside))
        return launch

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        try:
            process = await self._place.spawn(cmd, env=kwargs["env"], cwd=kwargs["cwd"])
        except OSError as error:
            raise KernelFailed(
                f"expected the kernel to start, but {cmd[0]!r} does not: {error}; "
                "check that its kernelspec is installed"
            ) from error
        self.process, self.exit_code = process, None
        return cast("KernelConnectionInfo", self._information(str(self.prefix)))

    def adopt(self, process: PlacedProcess | None) -> None:
        """Take over a kernel that another process has started; None: forget it, without harm."""
        self.process, self.exit_code = process, None

    async def cleanup(self, restart: bool = False) -> None:
        with suppress(OSError):  # the place's code may have put something else there
            self._remove_sockets()
            if not restart:
                self._connection_file.unlink(missing_ok=True)

    def connection(self) -> dict[str, Any]:
        """What a connection file holds, for a client beside the service."""
        return {**self._information(str(self.prefix)), "key": self._key.decode()}

    def _information(self, prefix: str) -> dict[str, Any]:
        if len(os.fsencode(f"{prefix}-0")) > MAX_SOCKET_PATH:
            raise KernelFailed(
                f"expected a socket path of {MAX_SOCKET_PATH} bytes at most, got {prefix}-0: "
                "use a data directory with a shorter path"
            )
        return {
            "transport": "ipc",
            "ip": prefix,
            "key": self._key,
            "signature_scheme": "hmac-sha256",
            **PORTS,
        }

    def _remove_sockets(self) -> None:
        for number in PORTS.values():
            Path(f"{self.prefix}-{number}").unlink(missing_ok=True)

    def _command(self, connection_file: str) -> list[str]:
        words = {"connection_file": connection_file, "resource_dir": self.kernel_spec.resource_dir}
        pattern = re.compile("|".join(f"{{({name})}}" for name in words))
        return [
            pattern.sub(lambda match: words[match[0][1:-1]], argument)
            for argument in self.kernel_spec.argv
        ]

    def _write_connection_file(self, info: dict[str, Any]) -> None:
        """Never through a link: what runs in the place can write to this directory."""
        self._connection_file.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._connection_file, flags, 0o600), "w") as file:
            if self._place.uid is not None:
                os.fchown(file.fileno(), self._place.uid, -1)
            json.dump({**info, "key": self._key.decode(), "kernel_name": ""}, file)

    @property
    def _connection_file(self) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.json")


class PlacedKernelManager(AsyncKernelManager):
    """Waits for the end of the process itself, and leaves requests to the kernel's connection."""

    # What these are wrapped in sleeps for 10 ms at the end, for the sake of jupyter_client's tests.
    start_kernel = inspect.unwrap(AsyncKernelManager.start_kernel)
    shutdown_kernel = inspect.unwrap(AsyncKernelManager.shutdown_kernel)

    def __init__(
        self,
        spec: KernelSpec,
        place: Place,
        context: zmq.Context[Any],
        *,
        short_id: str,
        key: bytes,
        on_shutdown: Callable[[bool], None],
    ) -> None:
        # One of its own costs two threads, and 10 ms when it is taken down.
        shared: Any = zmq.asyncio.Context.shadow(context)
        super().__init__(context=shared, transport="ipc", shutdown_wait_time=SHUTDOWN_WAIT)
        self._kernel_spec = spec
        self.session.key = key
        self._on_shutdown = on_shutdown
        self.placed = PlaceProvisioner(
            place,
            short_id=short_id,
            key=key,
            kernel_spec=spec,
            parent=self,
        )
        self.provisioner = self.placed

    def write_connection_file(self, **kwargs: Any) -> None:
        """The provisioner has written it, for the kernel; this side keeps it in memory."""

    def _connect_control_socket(self) -> None:
        pass

    async def _async_request_shutdown(self, restart: bool = False) -> None:
        self._on_shutdown(restart)

    async def _async_wait(self, pollinterval: float = 0.1) -> None:
        await self.placed.wait()
