"""One service process after another on the same data directory, and what runs on between them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

READY = "import sys; sys.argv = ['cellshell', 'serve', '--port', '0', *sys.argv[1:]]\n" + (
    "from api.command import main; main()"
)
SANDBOX = "/v1/sandboxes/kept"
BASE = f"{SANDBOX}/sessions/default"


class Service:
    """One service process after another on the same data directory."""

    def __init__(self, home: Path, plant: str = "") -> None:
        """`plant` is run in each process first."""
        self.home = home
        self.program = plant + READY
        self.client: httpx.AsyncClient
        self.process: asyncio.subprocess.Process
        self._is_warm = False

    async def start(self, *options: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self.program, "--home", str(self.home), "--on-stop", "keep"),
            *options,
            stdout=-1,
            stderr=-2,
        )
        assert self.process.stdout is not None
        said = b""
        async for line in self.process.stdout:
            said += line
            for word in line.decode().split():
                if word.startswith("http://127.0.0.1:"):
                    url = word.strip(".,")
                    self.client = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)
                    return
        raise AssertionError(said.decode())

    async def until_warm(self) -> None:
        """From now on, Python kernels are forked."""
        for _ in range(1000):
            health = (await self.client.get("/health")).json()
            if health["fork_server"] != "starting":
                self._is_warm = True
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the fork server does not come up")

    async def stop(self, number: int = signal.SIGKILL) -> str:
        """What it said at the end."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        assert self.process.stdout is not None
        said = await self.process.stdout.read()
        await self.process.wait()
        await self.client.aclose()
        return said.decode()

    async def restart(self, number: int = signal.SIGKILL) -> None:
        await self.stop(number)
        await self.start()

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.client.post(path, json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def exec(self, command: str, **options: Any) -> dict[str, Any]:
        return await self.post(f"{BASE}/exec", command=command, **options)

    async def code(self, code: str, **options: Any) -> dict[str, Any]:
        if not self._is_warm:
            await self.until_warm()
        return await self.post(f"{BASE}/code", code=code, **options)

    async def execution(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"{SANDBOX}/executions/{id}")).json()
        return found

    async def events(self, id: str, after: int = 0, until: str = "") -> list[dict[str, Any]]:
        """Events of an execution, up to its end or the first one called `until`."""
        found: list[dict[str, Any]] = []
        address = f"{SANDBOX}/executions/{id}/events?after={after}"
        async with self.client.stream("GET", address) as stream:
            event: dict[str, Any] = {}
            async for line in stream.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    event["data"] = json.loads(value)
                    found.append(event)
                    if event["event"] == until:
                        return found
                    event = {}
                elif name in ("id", "event"):
                    event[name] = value
        return found


@asynccontextmanager
async def serving(home: Path, plant: str = "") -> AsyncIterator[Service]:
    service = Service(home, plant)
    await service.start()
    assert (await service.client.put(SANDBOX)).status_code == 201
    try:
        yield service
    finally:
        assert (await service.client.delete(SANDBOX)).status_code == 204
        await service.stop(signal.SIGTERM)
    assert not (home / "sandboxes" / "kept").exists()
