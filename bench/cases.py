"""What is measured, and against what."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from bench.floors import SERVER, BareBash, PlainKernel, PlainServer
from bench.service import first_result

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from bench.crowd import Crowd
    from bench.frontends import Frontends
    from bench.service import Api
    from bench.way_out import WayOut

Operation = Callable[[], Any]
"""What is timed; a callable it returns is called after the clock stopped, to clean up, and a number
is what it has measured itself, in seconds."""

SANDBOX = "/v1/sandboxes/bench"
SESSION = f"{SANDBOX}/sessions/default"
EXEC, CODE = f"{SESSION}/exec", f"{SESSION}/code"
FILE = f"{SESSION}/files/content?path=/workspace/large"
SMALL = f"{SESSION}/files/content?path=small"
PORT = 8000
TEN_MB = 10_000_000
LINES = f"yes | head -c {TEN_MB}"
MANY_LINES = {"command": LINES, "max_output_bytes": 64 * 1024 * 1024}
SETTLED = 0.6
"""Seconds in which what was begun in the background comes to its end."""
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
    frontends: Frontends,
) -> list[Case]:
    ours = Ours(api)
    file, body = folder / "large", b"\0" * TEN_MB
    write = partial(file.write_bytes, body)
    hi, lines = partial(bash.exec, "echo hi"), partial(bash.exec, LINES)
    fresh = partial(PlainKernel.fresh, loop)
    code, prints = partial(kernel.run_code, "1+1"), partial(kernel.run_code, PRINTS)
    return [
        Case("GET /health", 200, partial(api.json, "GET", "/health")),
        Case("exec echo hi", 200, lambda: ours.exec(SESSION), hi),
        Case("exec echo hi, streamed", 100, lambda: api.stream(EXEC, {"command": "echo hi"}), hi),
        Case("code 1+1", 200, ours.code, code),
        Case("code 1+1, env for the call", 100, partial(ours.code, env={"A": "b"}), code),
        Case("code 1+1, streamed", 100, lambda: api.stream(CODE, {"code": "1+1"}), code),
        Case("code 1+1, WebSocket beside REST", 200, frontends.websocket, frontends.rest),
        Case("kernel's time, 20 frontends listen", 5, frontends.crowded, frontends.lonely),
        Case("notebook of 200 cells, beside its cells", 5, frontends.notebook, frontends.cells),
        Case("new session, first command", 20, ours.session, BareBash.fresh),
        Case("new context, first 1+1", 5, ours.context, fresh, ours.spare),
        Case("the same, none ready", 5, ours.context, fresh, ours.no_spare),
        Case("delete a context", 10, ours.deletion, None, ours.doomed),
        Case("new sandbox", 5, ours.sandbox, None, ours.ready),
        Case("new sandbox, first command", 5, ours.command, BareBash.fresh, ours.ready),
        Case("new sandbox, first 1+1", 5, ours.kernel, fresh, ours.ready),
        Case("new sandbox, none ready", 5, ours.sandbox, None, ours.none_ready),
        Case("the same, first 1+1", 5, ours.kernel, fresh, ours.none_ready),
        Case("exec yes | head, 10 MB", 10, ours.lines, lines),
        Case("the same, streamed", 5, lambda: api.stream(EXEC, MANY_LINES), lines),
        Case("code 100k prints", 10, ours.prints, prints),
        Case("write 10 MB", 10, partial(api.json, "PUT", FILE, body), write),
        Case("read 1 KB, relative path", 200, partial(api.call, "GET", SMALL)),
        Case("port proxy, GET", 200, ours.proxied(), server.get),
        Case("read 10 MB", 10, partial(api.call, "GET", FILE), file.read_bytes),
        Case("pause and resume", 50, ours.pause),
        Case("GET through the egress proxy", 300, way.proxied, way.straight),
        Case("service start, first 1+1", 3, first_result, fresh),
        Case("destroy 50 sandboxes", 2, crowd.destroy, None, crowd.fill),
        Case("adopt 50 sandboxes", 2, crowd.adopt, crowd.start_empty, crowd.fill_and_kill),
    ]


class Ours:
    """The operations of the service that need more than one call, or a look at the answer."""

    def __init__(self, api: Api) -> None:
        self._api = api
        api.json("PUT", SANDBOX, {})
        api.json("PUT", SMALL, b"x" * 1024)

    def exec(self, session: str) -> None:
        answer = self._api.json("POST", f"{session}/exec", {"command": "echo hi"})
        _expect(answer["stdout"] == "hi\n", answer)

    def code(self, **fields: object) -> None:
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

    def spare(self) -> None:
        """A kernel waits in the sandbox."""
        while not self._waiting("spare_kernels"):
            time.sleep(0.01)
        time.sleep(SETTLED)

    def no_spare(self) -> None:
        """The one that waited has gone; the next is made while the clock runs, or after."""
        self.context()()

    def doomed(self) -> None:
        self._doomed = f"{SESSION}/contexts/c-{uuid4()}"
        self._api.json("POST", f"{SESSION}/contexts", {"id": self._doomed.rpartition("/")[2]})

    def deletion(self) -> None:
        self._api.json("DELETE", self._doomed)

    def ready(self) -> None:
        """A box waits, and a kernel in it."""
        while not self._waiting("ready_boxes"):
            time.sleep(0.01)
        time.sleep(SETTLED)

    def none_ready(self) -> None:
        """The one that waited has gone, and no other is made for a moment."""
        self.sandbox()()

    def sandbox(self) -> Operation:
        self._fresh = f"/v1/sandboxes/b-{uuid4()}"
        self._api.json("PUT", self._fresh, {})
        return partial(self._api.json, "DELETE", self._fresh)

    def command(self) -> Operation:
        delete = self.sandbox()
        self.exec(f"{self._fresh}/sessions/default")
        return delete

    def kernel(self) -> Operation:
        delete = self.sandbox()
        answer = self._api.json("POST", f"{self._fresh}/sessions/default/code", {"code": "1+1"})
        _expect(answer["text"] == "2", answer)
        return delete

    def _waiting(self, what: str) -> bool:
        """Whether any of them waits to be asked for."""
        metrics = self._api.call("GET", "/metrics").decode()
        found = re.search(rf"^cellshell_{what}_waiting (\S+)", metrics, re.MULTILINE)
        return found is not None and float(found[1]) > 0

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
