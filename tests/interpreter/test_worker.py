"""The programs behind file operations: killed, stopped, lying, and after a crash."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator

import pytest
from boxed_session import boxed_session
from shelf import Shelf

from interpreter import worker as worker_module
from interpreter.errors import CellshellError, NotReady
from interpreter.file_info import describe
from interpreter.worker import MAX_FRAME, Guest, Worker

pytestmark = pytest.mark.box

SAY = """
import socket
peer = socket.socket(fileno=0)
peer.sendall(open("/workspace/said", "rb").read())
peer.recv(1)
"""

EVERY_WORKER = """
import os, signal, sys
others = {int(pid) for pid in os.listdir("/proc") if pid.isdigit()} - {os.getpid()}
found = [pid for pid in others if "guest/" + "worker.py" in open(f"/proc/{pid}/cmdline").read()]
for pid in found:
    try:
        os.listdir(f"/proc/{pid}/fd")
        open(f"/proc/{pid}/environ").read()
        sys.exit(3)
    except PermissionError:
        os.kill(pid, getattr(signal, sys.argv[1]))
sys.exit(len(found))
"""


@pytest.fixture(scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        shelf = Shelf(session)
        yield shelf
        await shelf.files.close()


@pytest.fixture
async def worker(shelf: Shelf) -> AsyncIterator[Worker]:
    worker = Worker(shelf.session.get_box)
    yield worker
    await worker.close()
    await shelf.files.close()
    await shelf.clear()


async def info(worker: Worker) -> object:
    return (await worker.call("info", "/workspace", path="/workspace"))["path"]


async def say(shelf: Shelf, worker: Worker, said: bytes) -> Guest:
    """A guest that says something of its own."""
    box = shelf.session.box
    await shelf.put("say.py", SAY.encode())
    await shelf.put("said", said)
    real, box.guest = box.guest, lambda name: "/workspace/say.py"  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(10):
            return await worker._begin(box, "say.py", ())
    finally:
        box.guest = real  # type: ignore[method-assign]


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


async def test_one_process_answers_in_order(shelf: Shelf, worker: Worker) -> None:
    asked = [worker.call("mkdir", p, path=f"/workspace/{p}", recursive=False) for p in "abc"]
    answers = await asyncio.gather(*asked, *[info(worker) for _ in range(20)])
    assert [answer["path"] for answer in answers[:3]] == [f"/workspace/{p}" for p in "abc"]
    assert answers[3:] == ["/workspace"] * 20
    assert await shelf.python(EVERY_WORKER, "SIGCONT") == 1


async def test_an_asker_who_left_disturbs_nobody(worker: Worker) -> None:
    await info(worker)
    left = asyncio.create_task(worker.call("mkdir", "a", path="/workspace/a", recursive=True))
    asker = asyncio.create_task(info(worker))
    await asyncio.sleep(0)
    left.cancel()
    assert await asker == "/workspace"


async def test_starting_is_not_lost_with_its_caller(shelf: Shelf, worker: Worker) -> None:
    first = asyncio.create_task(info(worker))
    await asyncio.sleep(0)
    first.cancel()
    assert await info(worker) == "/workspace"
    await worker.close()
    assert await shelf.python(EVERY_WORKER, "SIGCONT") == 0


async def test_a_killed_worker_is_replaced(shelf: Shelf, worker: Worker) -> None:
    for _ in range(3):
        assert await info(worker) == "/workspace"
        assert await shelf.python(EVERY_WORKER, "SIGKILL") == 1


async def test_a_stopped_worker_is_given_up(
    shelf: Shelf, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await info(worker)
    assert await shelf.python(EVERY_WORKER, "SIGSTOP") == 1
    monkeypatch.setattr(worker_module, "SILENCE", 0.3)
    with pytest.raises(NotReady):
        await worker.call("mkdir", "a", path="/workspace/a", recursive=False)
    monkeypatch.undo()
    assert await info(worker) == "/workspace"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        (MAX_FRAME + 1).to_bytes(4, "big"),
        frame(b"no json"),
        frame(b"[]"),
        frame(b"[" * 200_000),
        frame(b'{"\xff": 1}'),
        frame(b"9" * 5000),
    ],
)
async def test_nonsense_is_an_error_and_no_more(shelf: Shelf, worker: Worker, said: bytes) -> None:
    guest = await say(shelf, worker, said)
    with pytest.raises(NotReady):
        await guest.receive(silence=0.3 if said == b"" else 30)
    assert await guest.process.wait() in (0, -signal.SIGKILL)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ok": []},
        {"ok": {}},
        {"errno": "ENOENT"},
        {"errno": 10**30, "path": 5},
        {"code": ["x"], "message": {}},
        {"ok": {"path": 1, "mode": "x", "size": None}},
        {"ok": {"path": "\ud800", "mode": 10**30, "size": -5, "mtime_ns": 10**30, "target": None}},
    ],
)
async def test_answers_that_make_no_sense(answer: dict[str, object]) -> None:
    try:
        described = describe(worker_module.result(answer, "a"))
    except CellshellError as error:
        assert error.status < 600 and str(error).encode()
    else:
        assert described.model_dump_json()


async def test_what_a_crash_left_is_swept(shelf: Shelf, worker: Worker) -> None:
    place = await worker.call("write", "a", path="/workspace/new/a", append=False)
    kept = await worker.call("write", "b", path="/workspace/new/b", append=False)
    box = shelf.session.box
    flags = os.O_CREAT | os.O_WRONLY
    os.close(await box.open(place["temporary"], flags))
    held = await box.open(kept["temporary"], flags)
    fcntl.flock(held, fcntl.LOCK_SH)
    await shelf.run("mkdir", "-p", "precious/in")
    forged = "/home/user/.local/state/cellshell/.cellshell-0123456789abcdef~"
    await shelf.run("ln", "-s", "/workspace/precious", forged)
    await shelf.run("sh", "-c", "touch -h -d '1 minute ago' /home/user/.local/state/cellshell/.c*")
    await worker.close()

    after = Worker(shelf.session.get_box)
    await info(after)
    await after.close()
    left = {path.name for path in (shelf.host / "new").iterdir()}
    assert left == {os.path.basename(kept["temporary"])}
    assert (shelf.host / "precious" / "in").is_dir()
    os.close(held)
    last = Worker(shelf.session.get_box)
    await info(last)
    await last.close()
    assert list((shelf.host / "new").iterdir()) == []
