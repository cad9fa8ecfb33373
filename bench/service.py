"""A service in a process of its own, and a lean keep-alive client for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpreter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT = 3.0
"""Seconds that an idle connection is good for."""
SERVE = "from api.command import main; main()"


class Api:
    """One connection, kept; what is measured over it carries next to no cost of a client."""

    def __init__(self, port: int, pid: int = 0) -> None:
        """`pid` is the service's."""
        self.port = port
        self.pid = pid
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)
        self._used = 0.0

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        return self._send(method, path, body, {}).read()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.call(method, path, body)
        return json.loads(answer) if answer else None

    def peak_mb(self) -> float:
        """Memory of the service at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1000 if found else 0.0

    def stream(self, path: str, body: Any) -> None:
        """Reads the events up to the terminal one."""
        self._events("POST", path, body)

    def follow(self, path: str) -> None:
        """The same of an execution that was begun before."""
        self._events("GET", path, None)

    def _events(self, method: str, path: str, body: Any) -> None:
        lines = self._send(method, path, body, {"Accept": "text/event-stream"})
        names = [line[6:].strip() for line in lines if line.startswith(b"event:")]
        if names[-1] != b"done":
            raise RuntimeError(f"expected the stream to end with done, got {names[-3:]}")

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> HTTPResponse:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers |= {"Content-Type": "application/json"}
        if time.monotonic() - self._used > KEPT:
            self._connection.close()  # the service did, or is about to
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        self._used = time.monotonic()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path} answered {response.status}: {response.read()!r}")
        return response

    def disconnect(self) -> None:
        self._connection.close()

    def close(self) -> None:
        """A box outlives its service: all are deleted."""
        self._connection.close()
        for sandbox in self.json("GET", "/v1/sandboxes"):
            self.call("DELETE", f"/v1/sandboxes/{sandbox['id']}")
        self._connection.close()


@contextmanager
def service(**settings: str) -> Iterator[Api]:
    """A fresh service with an empty home, on a free port."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        process, port = start(home, **settings)
        try:
            with closing(Api(port, process.pid)) as api:
                yield api
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            assert process.stdout
            process.stdout.close()


def start(home: str, **settings: str) -> tuple[subprocess.Popen[str], int]:
    """A service that listens, and its port."""
    given = {f"CELLSHELL_{name.upper()}": value for name, value in settings.items()}
    kernels = os.environ.get("CELLSHELL_KERNEL_ENVIRONMENT", str(Settings().python_home))
    places = {"CELLSHELL_HOME": home, "CELLSHELL_KERNEL_ENVIRONMENT": kernels}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "--port", "0"],
        env=os.environ | places | given | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, _port(process)


def first_result() -> Callable[[], None]:
    """From a cold process to the answer of a cell in a first sandbox."""
    with ExitStack() as stack:
        api = stack.enter_context(service(spare_kernels="0", ready_boxes="0"))
        api.json("PUT", "/v1/sandboxes/first", {})
        answer = api.json("POST", "/v1/sandboxes/first/sessions/default/code", {"code": "1+1"})
        if answer["text"] != "2":
            raise RuntimeError(f"the service answered something else: {answer!r}")
        return stack.pop_all().close


def _port(process: subprocess.Popen[str]) -> int:
    """The port it says it listens on; what it says later is read away."""
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://[^/\s]*:([1-9]\d*)", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return int(found[1])
    raise RuntimeError("the service did not start:\n" + "".join(said))
