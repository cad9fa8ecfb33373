"""Frontends at the Jupyter door: one that runs cells, twenty that listen; and notebooks."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from api.jupyter_frames import V1, from_v1, to_v1
from kernels import wire
from kernels.packets import Packet, members

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from bench.service import Api

SANDBOX = "/v1/sandboxes/frontends"
SESSION = f"{SANDBOX}/sessions/default"
LISTENERS = 20
PRINTS = 50
CELLS = 200
NOTEBOOK = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}}
CELL = {
    "cell_type": "code",
    "metadata": {},
    "source": "1+1",
    "outputs": [],
    "execution_count": None,
}
LISTEN = """
import asyncio, sys
from websockets.asyncio.client import connect
async def listen(address):
    async with connect(address, subprotocols=[sys.argv[3]]) as socket:
        print(flush=True)
        async for _ in socket:
            pass
async def main(address, number):
    async with asyncio.TaskGroup() as group:
        for name in range(number):
            group.create_task(listen(f"{address}?session_id={name}"))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Frontends:
    """A sandbox with three contexts: for a frontend, for many of them, and for nobody."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._numbers = count(1)
        api.json("PUT", SANDBOX, {})
        for name in ("python", "crowded", "lonely"):
            api.json("POST", f"{SESSION}/contexts", {"id": name})
        self._socket = self._connect(self._address("python"))
        self._listeners = self._listen(self._address("crowded"))
        self._notebook = {**NOTEBOOK, "cells": [CELL] * CELLS}

    def websocket(self) -> None:
        """`1+1` until the kernel is idle again."""
        id = str(next(self._numbers))
        header = {"msg_id": id, "msg_type": "execute_request", "session": "bench", "username": ""}
        header |= {"version": "5.3", "date": "2026-01-01T00:00:00.000000Z"}
        content = {"code": "1+1", "silent": False, "store_history": True, "allow_stdin": False}
        parts = [wire.pack(part) for part in (header, {}, {}, content)]
        self._socket.send(to_v1(Packet("shell", *parts, [])))
        waiting = {"execute_result", "execute_reply", "idle"}
        while waiting:
            waiting.discard(self._next(id))

    def rest(self) -> None:
        self._run("python", "1+1")

    def crowded(self) -> float:
        """Seconds of processor time that cells cost a kernel to which many listen."""
        return self._kernel_time("crowded")

    def lonely(self) -> float:
        return self._kernel_time("lonely")

    def notebook(self) -> None:
        body = {"notebook": self._notebook}
        result = self._api.json("POST", f"{SESSION}/notebooks/run", body)
        if (result["status"], result["executed"]) != ("ok", CELLS):
            raise RuntimeError(f"the notebook ended otherwise: {result['status']}")

    def cells(self) -> float:
        """The sum of what the same cells take by their own account."""
        return sum(self._run("python", "1+1")["duration"] for _ in range(CELLS))

    def close(self) -> None:
        self._socket.close()
        self._listeners.kill()
        self._listeners.communicate()

    def _kernel_time(self, context: str) -> float:
        self._run(context, "import time; _before = time.process_time()")
        for _ in range(PRINTS):
            self._run(context, "print('x')")
        return float(self._run(context, "time.process_time() - _before")["text"])

    def _run(self, context: str, code: str) -> Any:
        answer = self._api.json("POST", f"{SESSION}/code", {"code": code, "context": context})
        if answer["status"] != "ok":
            raise RuntimeError(f"the service answered something else: {answer!r}")
        return answer

    def _next(self, id: str) -> str:
        """What the next message of that request tells."""
        frame = self._socket.recv()
        assert isinstance(frame, bytes)
        packet = from_v1(frame)
        if members(packet.parent, "parent").get("msg_id") != id:
            return ""
        kind = members(packet.header, "header")["msg_type"]
        return str(members(packet.content, "content").get("execution_state", kind))

    def _address(self, context: str) -> str:
        for model in self._api.json("GET", "/api/sessions"):
            if model["path"] == f"frontends/default/{context}":
                kernel = model["kernel"]["id"]
                return f"ws://127.0.0.1:{self._api.port}/api/kernels/{kernel}/channels"
        raise RuntimeError(f"the context {context!r} is not listed")

    def _connect(self, address: str) -> ClientConnection:
        return connect(f"{address}?session_id=bench", subprotocols=[Subprotocol(V1)])

    def _listen(self, address: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", LISTEN, address, str(LISTENERS), V1]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for _ in range(LISTENERS):
            process.stdout.readline()
        return process
