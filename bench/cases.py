"""What is measured, and against what."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from bench.floors import SERVER, BareBash, PlainKernel, PlainServer

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from bench.crowd import Crowd
    from bench.service import Api
    from bench.way_out import WayOut

Operation = Callable[[], Any]
"""What is timed; a callable it returns is called after the clock stopped, to clean up."""

SANDBOX = "/v1/sandboxes/bench"
SESSION = f"{SANDBOX}/sessions/default"
EXEC, CODE = f"{SESSION}/exec", f"{SESSION}/code"
FILE = f"{SESSION}/files/content?path=/workspace/large"
PORT = 8000
TEN_MB = 10_000_000
LINES = f"yes | head -c {TEN_MB}"
MANY_LINES = {"command": LINES, "max_output_bytes": 64 * 1024 * 1024}
PRINTS = "for i in range(100_000): print(i)"


class Case(NamedTuple):
    """One operation of ours and its floor."""

    name: str
    rounds: int
    ours: Operation
    floor: Operation | None = None
    prepare: Callable[[], None] | None = None
    """Done before each of ours, while no clock runs."""


def cases(
    api: Api,
    bash: BareBash,
    kernel: PlainKernel,
    server: PlainServer,
    loop: asyncio.AbstractEventLoop,
    folder: Path,
    way: WayOut,
    crowd: Crowd,
) -> list[Case]:
    ours = Ours(api)
    file, body = folder / "large", b"\0" * TEN_MB
    write = partial(file.write_bytes, body)
    hi, lines = partial(bash.exec, "echo hi"), partial(bash.exec, LINES)
    code, prints = partial(kernel.run_code, "1+1"), partial(kernel.run_code, PRINTS)
    return [
        Case("GET /health", 200, partial(api.json, "GET", "/health")),
        Case("exec echo hi", 200, lambda: ours.exec(SESSION), hi),
        Case("exec echo hi, streamed", 100, lambda: api.stream(EXEC, {"command": "echo hi"}), hi),
        Case("code 1+1", 200, ours.code, code),
        Case("code 1+1, streamed", 100, lambda: api.stream(CODE, {"code": "1+1"}), code),
        Case("new session, first command", 20, ours.session, BareBash.fresh),
        Case("new context, first 1+1", 5, ours.context, partial(PlainKernel.fresh, loop)),
        Case("new sandbox, first command", 10, ours.sandbox, BareBash.fresh),
        Case("new sandbox, first 1+1", 10, ours.kernel, partial(PlainKernel.fresh, loop)),
        Case("exec yes | head, 10 MB", 10, ours.lines, lines),
        Case("the same, streamed", 5, lambda: api.stream(EXEC, MANY_LINES), lines),
        Case("code 100k prints", 10, ours.prints, prints),
        Case("write 10 MB", 10, partial(api.json, "PUT", FILE, body), write),
        Case("port proxy, GET", 200, ours.proxied(), server.get),
        Case("read 10 MB", 10, partial(api.call, "GET", FILE), file.read_bytes),
        Case("pause and resume", 50, ours.pause),
        Case("GET through the egress proxy", 300, way.proxied, way.straight),
        Case("destroy 50 sandboxes", 2, crowd.destroy, None, crowd.fill),
        Case("adopt 50 sandboxes", 2, crowd.adopt, crowd.start_empty, crowd.fill_and_kill),
    ]


class Ours:
    """The operations of the service that need more than one call, or a look at the answer."""

    def __init__(self, api: Api) -> None:
        self._api = api
        api.json("PUT", SANDBOX, {})

    def exec(self, session: str) -> None:
        answer = self._api.json("POST", f"{session}/exec", {"command": "echo hi"})
        _expect(answer["stdout"] == "hi\n", answer)

    def code(self, **fields: str) -> None:
        answer = self._api.json("POST", CODE, {"code": "1+1", **fields})
        _expect(answer["text"] == "2", answer)

    def session(self) -> Operation:
        name = f"s-{uuid4()}"
        self._api.json("POST", f"{SANDBOX}/sessions", {"id": name})
        self.exec(f"{SANDBOX}/sessions/{name}")
        return lambda: self._api.json("DELETE", f"{SANDBOX}/sessions/{name}")

    def context(self) -> Operation:
        name = f"c-{uuid4()}"
        self._api.json("POST", f"{SESSION}/contexts", {"id": name})
        self.code(context=name)
        return lambda: self._api.json("DELETE", f"{SESSION}/contexts/{name}")

    def sandbox(self) -> Operation:
        path = f"/v1/sandboxes/b-{uuid4()}"
        self._api.json("PUT", path, {})
        self.exec(f"{path}/sessions/default")
        return lambda: self._api.json("DELETE", path)

    def kernel(self) -> Operation:
        path = f"/v1/sandboxes/b-{uuid4()}"
        self._api.json("PUT", path, {})
        answer = self._api.json("POST", f"{path}/sessions/default/code", {"code": "1+1"})
        _expect(answer["text"] == "2", answer)
        return lambda: self._api.json("DELETE", path)

    def proxied(self) -> Operation:
        """Asks the same server as the floor, in the sandbox."""
        command = f"exec python3 -c {shlex.quote(SERVER)} {PORT}"
        self._api.json("POST", f"{SESSION}/processes", {"command": command, "id": "server"})
        wait = {"for": "port", "port": PORT}
        self._api.json("POST", f"{SANDBOX}/processes/server/wait", wait)
        return partial(self._api.call, "GET", f"{SANDBOX}/ports/{PORT}/proxy/")

    def pause(self) -> None:
        """Of a sandbox with what the other cases have left in it."""
        answer = self._api.json("POST", f"{SANDBOX}/pause")
        _expect(answer["status"] == "paused", answer)
        answer = self._api.json("POST", f"{SANDBOX}/resume")
        _expect(answer["status"] == "running", answer)

    def lines(self) -> None:
        answer = self._api.call("POST", EXEC, MANY_LINES)
        _expect(len(answer) > TEN_MB, answer[:300])

    def prints(self) -> None:
        answer = self._api.json("POST", CODE, {"code": PRINTS})
        _expect(answer["status"] == "ok" and answer["stdout"].endswith("99999\n"), answer["error"])


def _expect(right: bool, answer: object) -> None:
    if not right:
        raise RuntimeError(f"the service answered something else: {answer!r}")
