"""The service killed at random moments under load: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from restarting import BASE, SANDBOX, Service, serving

pytestmark = pytest.mark.box
LONGEST = 0.4
LINES = 3000
SIZE = 3_000_000

MOST_CALLS = 12
"""As a power of two: about what one round makes."""
PLANTS = {
    "output": """
import os
from interpreter.command_outputs import CommandOutputs
resume = CommandOutputs.resume
def forgetful(self, *args):
    for fd in self._read.values():
        try: os.read(fd, 100)
        except BlockingIOError: pass
    resume(self, *args)
CommandOutputs.resume = forgetful
""",
    "runs": """
from interpreter.models import Exec
from interpreter.succession import Succession
def again(self, execution, busy):
    request = Exec.model_validate(execution.request)
    self._commands.submit(execution, request, execution.cwd)
Succession._continue_command = again
""",
    "environment": """
from interpreter.sessions import Session
save = Session.save
def once(self):
    if not hasattr(self, "saved"): self.saved = save(self)
Session.save = once
""",
}
"""What breaks a promise of the service, put into it."""

Request = tuple[str, dict[str, Any]]


def command(number: int) -> Request:
    text = (
        f"for ((i = 0; i < {LINES}; i++)); do echo $i; done; echo {number} >> ran; "
        f"export LAST={number}; seq 100 >&2; (exit 7)"
    )
    return "exec", {"command": text, "id": f"command-{number}"}


def cell(number: int) -> Request:
    text = (
        f"for i in range({LINES}):\n    print(i)\n    if i % 500 == 0: time.sleep(0.01)\n"
        f"ran.append({number})\nos.environ['CELL'] = '{number}'\nlen(ran)"
    )
    return "code", {"code": text, "id": f"cell-{number}"}


async def insist(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response | None:
    """None when the service was killed before it answered."""
    with suppress(httpx.TransportError):
        return await ask()
    return None


class Round:
    """What is asked of one service, and what the next one must have made of it."""

    def __init__(self, service: Service, number: int) -> None:
        self.service = service
        self.number = number
        self.acknowledged = False

    async def load(self) -> None:
        """Everything at once, until the service is gone."""
        client = self.service.client
        posts = [command(self.number), cell(self.number)]
        asks = [client.post(f"{BASE}/{route}", json=body) for route, body in posts]
        await asyncio.gather(
            *(insist(lambda ask=ask: ask) for ask in asks),  # type: ignore[misc]
            self.set_env(),
            insist(lambda: client.put(self.address, content=self.content(self.number))),
            insist(lambda: client.post(f"{BASE}/processes", json=self.process)),
        )

    async def set_env(self) -> None:
        body = {"SET": str(self.number)}
        answer = await insist(lambda: self.service.client.patch(f"{BASE}/env", json=body))
        self.acknowledged = answer is not None and answer.status_code == 200

    @property
    def address(self) -> str:
        return f"{BASE}/files/content?path=/workspace/upload"

    @property
    def process(self) -> dict[str, Any]:
        return {"id": f"process-{self.number}", "command": f"seq {LINES}; seq 50 >&2"}

    def content(self, number: int) -> bytes:
        return str(number).encode().rjust(4, b"0") * (SIZE // 4)

    async def check(self) -> None:
        await self.check_run(command(self.number), err="".join(f"{n}\n" for n in range(1, 101)))
        await self.check_run(cell(self.number), err="")
        await self.check_environment()
        await self.check_upload()
        await self.check_process()

    async def check_run(self, request: Request, err: str) -> None:
        """Asked again under its id: what came of it the first time, or now."""
        route, body = request
        result = await self.service.post(f"{BASE}/{route}", **body)
        out = "".join(f"{n}\n" for n in range(LINES))
        assert (result.get("status", "ok"), result["notices"]) == ("ok", []), result
        assert (result["stdout"], result["stderr"]) == (out, err)
        assert result.get("exit_code", 7) == 7
        if route == "code":
            assert result["text"] == str(self.number + 1)
        events = await self.service.events(body["id"])
        assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
        told = [
            event["data"].get("data") or event["data"].get("output", {}).get("text") or ""
            for event in events
            if event["event"] in ("stdout", "output")
        ]
        assert "".join(told) == out

    async def check_environment(self) -> None:
        result = await self.service.exec("cat ran; echo $LAST $CELL ${SET-}")
        *ran, last = result["stdout"].splitlines()
        assert ran == [str(n) for n in range(self.number + 1)]  # each of them once
        values = last.split()
        assert values[:2] == [str(self.number)] * 2
        if self.acknowledged:
            assert values[2] == str(self.number)

    async def check_upload(self) -> None:
        """The old file, or the new one; nothing half done lies about."""
        data = (await self.service.client.get(self.address)).content
        assert data in (self.content(self.number), self.content(self.number - 1))
        await self.service.client.put(self.address, content=self.content(self.number))
        listed = await self.service.client.get(f"{BASE}/files?path=/workspace&hidden=true")
        assert sorted(entry["name"] for entry in listed.json()) == ["ran", "upload"]

    async def check_process(self) -> None:
        client, id = self.service.client, self.process["id"]
        answer = await client.post(f"{BASE}/processes", json=self.process)
        assert answer.status_code in (201, 409)
        waited = await self.service.post(f"{SANDBOX}/processes/{id}/wait", **{"for": "exit"})
        assert waited["process"]["exit_code"] == 0
        logs = (await client.get(f"{SANDBOX}/processes/{id}/logs")).json()
        assert logs["stdout"] == "".join(f"{n}\n" for n in range(1, LINES + 1))
        assert logs["stderr"] == "".join(f"{n}\n" for n in range(1, 51))


class Killer:
    """Chooses when the service dies while it is under load."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)

    async def prepare(self, service: Service) -> None:
        self._ends_at = self._choose.random() * LONGEST

    async def strike(self, service: Service) -> None:
        await asyncio.sleep(self._ends_at)
        await service.stop()


class AtSystemCalls(Killer):
    """At the n-th system call from here on of the thread that does the service's work."""

    async def prepare(self, service: Service) -> None:
        count = int(2 ** (self._choose.random() * MOST_CALLS))
        inject = f"inject=all:signal=KILL:when={count}"
        self._strace = await asyncio.create_subprocess_exec(
            *("strace", "-p", str(service.process.pid), "-o", "/dev/null", "-e", inject), stderr=-1
        )
        assert self._strace.stderr
        said = await self._strace.stderr.readline()
        assert b"attached" in said, said

    async def strike(self, service: Service) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(service.process.wait(), 5)
        await service.stop()
        await self._strace.communicate()


async def kill_again_and_again(home: Path, rounds: int, killer: Killer, plant: str = "") -> None:
    async with serving(home, plant) as service:
        await service.exec("true")
        await service.code("import os, time; ran = []")
        await service.client.put(
            f"{BASE}/files/content?path=/workspace/upload", content=b"00-1" * (SIZE // 4)
        )
        for number in range(rounds):
            this = Round(service, number)
            await killer.prepare(service)
            loading = asyncio.create_task(this.load())
            await killer.strike(service)
            await loading
            await service.start()
            await this.check()


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


async def test_some_kills(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 5, Killer(seed=1))


@needs_strace
async def test_some_kills_at_system_calls(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 5, AtSystemCalls(seed=1))


@pytest.mark.parametrize("plant", PLANTS)
async def test_a_planted_loss_is_found(tmp_path: Path, plant: str) -> None:
    with pytest.raises(AssertionError):
        await kill_again_and_again(tmp_path, 20, Killer(seed=1), PLANTS[plant])


def drawn() -> int:
    seed = int(os.environ.get("CELLSHELL_SEED", secrets.randbelow(10**6)))
    print("seed:", seed)  # noqa: T201
    return seed


@pytest.mark.stress
@pytest.mark.timeout(1200)
async def test_many_kills(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 50, Killer(drawn()))


@needs_strace
@pytest.mark.stress
@pytest.mark.timeout(1200)
async def test_many_kills_at_system_calls(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 50, AtSystemCalls(drawn()))
