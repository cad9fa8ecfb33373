"""The service in this process, on a Unix socket in a private directory."""

from __future__ import annotations

import logging
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from interpreter.client_transport import transport_options
from interpreter.settings import Settings


class LocalService:
    """Serves a Cellshell app for one client. Without settings, all it makes is temporary."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._temporary_home = settings is None
        self._runs = False
        self._temporary = tempfile.TemporaryDirectory(
            prefix="cellshell-local-", ignore_cleanup_errors=True
        )
        self._directory = Path(self._temporary.name)
        self._settings = settings or temporary_settings(self._directory)
        self._stack = AsyncExitStack()

    @property
    def ends_sandboxes(self) -> bool:
        """Whether there are sandboxes that nobody could reach any more after it ends."""
        return self._runs and self._temporary_home

    @property
    def token(self) -> str | None:
        token = self._settings.token
        return token.get_secret_value() if token is not None else None

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(uds=str(self._address), **transport_options())

    async def start(self) -> None:
        """Starts the app; its own errors reach the caller."""
        # The one upward import: only a client that wants a service of its own needs the app.
        from api.serving import serving

        # And only that one needs what knows of kernels, which takes as long to import.
        from interpreter.python_environment import ensure

        async with AsyncExitStack() as stack:
            stack.callback(self._temporary.cleanup)
            await ensure(self._settings, logging.getLogger("cellshell").warning)
            listener = stack.enter_context(_listen(self._address))
            await stack.enter_async_context(serving(self._settings, listener))
            self._stack, self._runs = stack.pop_all(), True

    async def stop(self) -> None:
        """Ends the app; without effect when it does not run."""
        self._runs = False
        await self._stack.aclose()
        self._temporary.cleanup()

    @property
    def _address(self) -> Path:
        return self._directory / "socket"


def temporary_settings(directory: Path) -> Settings:
    """The operator's settings, with the kernel environment they name but a home of its own."""
    directory.chmod(0o711)  # users of boxes pass it
    usual = Settings()
    return usual.model_copy(
        update={
            "home": directory / "home",
            "kernel_environment": usual.python_home,
            "on_stop": "destroy",
        }
    )


def _listen(address: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(128)
    return listener
