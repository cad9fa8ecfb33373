"""The client against the real service, which `AsyncClient.local()` starts in this process."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from interpreter import AsyncClient, AsyncSandbox, Client
from interpreter.errors import (
    ContextNotFound,
    ExecutionMismatch,
    ExecutionOver,
    FileExists,
    FileNotFound,
    InvalidCwd,
    IsADirectory,
    ProcessExited,
    SandboxExists,
    SandboxNotFound,
    SessionNotFound,
    WaitTimeout,
)
from interpreter.models import ExecResult
from interpreter.settings import Settings

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient.local() as client:
        yield client


@pytest.fixture(scope="module")
async def sandbox(client: AsyncClient) -> AsyncSandbox:
    return await client.get_sandbox("shared")


async def test_sandboxes_come_and_go(client: AsyncClient) -> None:
    made = await client.create_sandbox("made", labels={"team": "a b"}, env={"A": "1"})
    assert (await client.get_sandbox("made", labels={"team": "c"})).info.labels == {"team": "a b"}
    with pytest.raises(SandboxExists):
        await client.create_sandbox("made")
    assert await made.set_env_vars({"B": "2", "A": None}) == {"B": "2"}
    assert "made" in [each.id for each in await client.list_sandboxes()]
    await made.destroy()
    with pytest.raises(SandboxNotFound):
        await client.find_sandbox("made")


async def test_shell_kernel_and_files_share_one_environment(sandbox: AsyncSandbox) -> None:
    session = await sandbox.create_session("shared-env", cwd="/workspace/prod", env={"N": "x"})
    await session.exec("export N='a \"b\" $c'; mkdir -p sub; cd sub")
    result = await session.run_code("import os; os.getcwd(), os.environ['N']")
    assert result.text == repr(("/workspace/prod/sub", 'a "b" $c'))
    assert (await session.write_file("here.txt", "x")).path == "/workspace/prod/sub/here.txt"
    changed = await session.set_env_vars({"N": None})
    assert (changed.cwd, changed.env.get("N")) == ("/workspace/prod/sub", None)
    assert (await session.get_environment()).version == changed.version
    await session.delete()
    with pytest.raises(SessionNotFound):
        await sandbox.get_session("shared-env")


async def test_a_command_is_a_result_with_and_without_callbacks(sandbox: AsyncSandbox) -> None:
    pieces: list[tuple[str, str]] = []

    async def keep(text: str) -> None:
        pieces.append(("err", text))

    command = "echo out; echo err >&2; cat; exit 3"
    streamed = await sandbox.exec(
        f"({command})",
        stdin="in\n",
        on_stdout=lambda text: pieces.append(("out", text)),
        on_stderr=keep,
    )
    waited = await sandbox.exec(f"({command})", stdin="in\n")
    assert "".join(text for name, text in pieces if name == "out") == "out\nin\n"
    assert ("err", "err\n") in pieces
    same = {"id", "duration", "state"}
    assert streamed.model_dump(exclude=same) == waited.model_dump(exclude=same)
    assert (waited.exit_code, waited.success) == (3, False)


async def test_code_is_a_result_with_and_without_callbacks(sandbox: AsyncSandbox) -> None:
    outputs: list[dict[str, Any]] = []
    code = "import sys; print('a'); print('b', file=sys.stderr); {'x': 1}"
    texts: list[str] = []
    result = await sandbox.run_code(code, on_output=outputs.append, on_stdout=texts.append)
    assert (result.status, result.text, result.stdout, result.stderr) == (
        "ok",
        "{'x': 1}",
        "a\n",
        "b\n",
    )
    assert "".join(texts) == "a\n"
    assert [each["output_type"] for each in outputs][-1] == "execute_result"
    names = [event.name async for event in sandbox.run_code_stream("1")]
    assert (names[0], names[-1]) == ("started", "done")


async def test_base64_brings_every_byte(sandbox: AsyncSandbox) -> None:
    data = bytes(range(256)) * 300
    given = base64.b64encode(data).decode()
    pieces: list[bytes] = []
    result = await sandbox.exec(
        "cat",
        stdin=given,
        encoding="base64",
        on_stdout=lambda text: pieces.append(base64.b64decode(text)),
    )
    assert b"".join(pieces) == base64.b64decode(result.stdout) == data


async def test_a_cancelled_call_cancels_what_it_ran(sandbox: AsyncSandbox) -> None:
    session = await sandbox.create_session("cancelled")
    started = asyncio.Event()
    task = asyncio.create_task(
        session.exec("echo on; sleep 600", on_stdout=lambda _: started.set())
    )
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await session.exec("pgrep -c sleep", timeout=20)).stdout == "0\n"


async def test_an_id_makes_a_run_repeatable(sandbox: AsyncSandbox) -> None:
    first = await sandbox.exec("echo $RANDOM$RANDOM", id="once")
    again = await sandbox.exec("echo $RANDOM$RANDOM", id="once", on_stdout=lambda _: None)
    assert isinstance(await sandbox.get_execution("once"), ExecResult)
    assert first.stdout == again.stdout
    with pytest.raises(ExecutionMismatch):
        await sandbox.exec("echo other", id="once")
    with pytest.raises(ExecutionOver):
        await sandbox.cancel_execution("once")


async def test_a_detached_run_is_followed_and_cancelled(sandbox: AsyncSandbox) -> None:
    session = await sandbox.create_session("detached")
    detached = await session.exec_detached("echo begun; sleep 600")
    seen = []
    async for event in session.stream_execution(detached.id):
        seen.append(event.name)
        if event.name == "stdout":
            await session.cancel_execution(detached.id)
    assert seen == ["started", "stdout", "done"]
    assert [e.name async for e in session.stream_execution(detached.id, after=2)] == ["done"]
    result = await session.get_execution(detached.id)
    assert isinstance(result, ExecResult)
    assert (result.cancelled, result.stdout, result.state) == (True, "begun\n", "done")


async def test_contexts(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context(id="own", env={"PRIVATE": "1"})
    await context.run_code("import os; number = 7; seen = os.environ['PRIVATE']")
    assert (await sandbox.run_code("number + 1", context=context)).text == "8"
    assert (await sandbox.run_code("seen", context="own")).text == "'1'"
    assert [each.id for each in await sandbox.list_code_contexts()] >= ["own"]
    assert "number" in [each.name for each in await context.variables()]
    assert "number" in (await context.complete("numb"))["matches"]
    assert (await context.inspect("number"))["found"] is True
    await context.restart()
    assert (await context.run_code("number")).status == "error"
    await context.delete()
    with pytest.raises(ContextNotFound):
        await sandbox.get_code_context("own")


async def test_the_notebook_of_a_context(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context()
    await context.run_code("1 + 1")
    notebook = await context.notebook()
    assert notebook["nbformat"] == 4
    assert notebook["cells"][0]["source"] == "1 + 1"


async def test_processes(sandbox: AsyncSandbox) -> None:
    process = await sandbox.start_process("read line; echo got $line; exit 4", id="reader")
    await process.write_stdin("this\n")
    found = await process.wait_for_log(re.compile("got (.*)"))
    assert (found.line, found.match) == ("got this", ["got this", "this"])
    assert ((await process.wait_for_exit()).exit_code, process.status) == (4, "exited")
    names = [event.name async for event in process.stream_logs()]
    assert (names[0], names[-1]) == ("stdout", "exit")
    assert (await sandbox.get_process_logs("reader")).stdout == "got this\n"
    with pytest.raises(ProcessExited):
        await process.write_stdin("more")
    sleeper = await sandbox.start_process("sleep 600")
    with pytest.raises(WaitTimeout):
        await sleeper.wait_for_exit(timeout=0.05)
    assert (await sleeper.kill()).status == "killed"
    assert {each.id for each in await sandbox.list_processes()} >= {"reader", sleeper.id}


async def test_files(sandbox: AsyncSandbox) -> None:
    info = await sandbox.write_file("files/a b.bin", b"\0\xff", mode="0750")
    assert (info.size, info.mode) == (2, "0750")
    await sandbox.write_file("files/a b.bin", iter([b"1", b"", b"2"]), append=True)
    assert await sandbox.read_file("files/a b.bin") == b"\0\xff12"
    await sandbox.write_file("files/text", "größer")
    assert await sandbox.read_file("files/text", encoding="utf-8") == "größer"
    await sandbox.copy_file("files/text", "files/copy")
    with pytest.raises(FileExists):
        await sandbox.move_file("files/copy", "files/text")
    await sandbox.rename_file("files/copy", "files/.hidden")
    assert [each.name for each in await sandbox.list_files("files")] == ["a b.bin", "text"]
    assert await sandbox.exists("files/.hidden")
    await sandbox.delete_file("files/.hidden")
    assert not await sandbox.exists("files/.hidden")
    assert not await sandbox.exists("files/text/below")
    with pytest.raises(IsADirectory):
        await sandbox.read_file("files")
    with pytest.raises(FileNotFound):
        await anext(sandbox.read_file_stream("files/none"))


async def test_large_files_are_streamed(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    block = os.urandom(1 << 20)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield block

    await sandbox.write_file("large", blocks())
    size = 0
    async for piece in sandbox.read_file_stream("large"):
        size += len(piece)
    assert size == 20 << 20
    (tmp_path / "local").write_bytes(block)
    with (tmp_path / "local").open("rb") as file:
        assert (await sandbox.write_file("large", file)).size == 1 << 20


async def test_archives(sandbox: AsyncSandbox) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("in/side.txt")
        member.size, member.mode = 2, 0o600
        archive.addfile(member, io.BytesIO(b"ok"))
    await sandbox.upload_archive("unpacked", packed.getvalue())
    got = b"".join([piece async for piece in sandbox.download_archive("unpacked")])
    with tarfile.open(fileobj=io.BytesIO(got)) as archive:
        [found] = [each for each in archive if each.isfile()]
        assert (found.name.removeprefix("./"), stat.S_IMODE(found.mode)) == ("in/side.txt", 0o600)


async def test_watching(sandbox: AsyncSandbox) -> None:
    await sandbox.mkdir("watched")
    watch = sandbox.watch("watched")
    assert (await anext(watch)).name == "started"
    await sandbox.write_file("watched/new", "x")
    event = await asyncio.wait_for(anext(watch), 20)
    assert event.data["path"] == "/workspace/watched/new"
    await watch.aclose()


async def test_refusals_arrive_as_their_classes(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidCwd):
        await sandbox.exec("true", cwd="/missing")
    with pytest.raises(InvalidCwd):
        await anext(sandbox.exec_stream("true", cwd="/missing"))


async def test_many_calls_at_once(client: AsyncClient) -> None:
    sandbox = await client.get_sandbox("many")
    results: list[Any] = await asyncio.gather(
        *(sandbox.exec(f"echo {number}", on_stdout=lambda _: None) for number in range(60)),
        *(sandbox.run_code(f"print({number})") for number in range(60)),
    )
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(60)] * 2
    await sandbox.destroy()


async def test_a_service_with_settings_keeps_its_sandboxes(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, kernel_environment=Settings().python_home)
    async with AsyncClient.local(settings) as client:
        await (await client.get_sandbox("kept")).write_file("kept.txt", "here")
    async with AsyncClient.local(settings) as client:
        sandbox = await client.find_sandbox("kept")
        assert await sandbox.read_file("kept.txt") == b"here"
        await sandbox.destroy()


@pytest.fixture(scope="module")
def blocking() -> Iterator[Client]:
    with Client.local() as client:
        yield client


def test_the_blocking_client(blocking: Client) -> None:
    sandbox = blocking.get_sandbox("blocking")
    pieces: list[str] = []
    assert sandbox.exec("echo a; echo b", on_stdout=pieces.append).stdout == "".join(pieces)
    context = sandbox.create_code_context()
    assert context.run_code("1 + 1").text == "2"
    assert sandbox.run_code("2 + 2", context=context).text == "4"
    process = sandbox.start_process("echo started; sleep 600")
    assert process.wait_for_log("started").line == "started"
    assert process.kill().signal is not None
    sandbox.write_file("a", "x")
    assert (sandbox.read_file("a"), sandbox.read_file("a", encoding="ascii")) == (b"x", "x")
    assert b"".join(sandbox.read_file_stream("a")) == b"x"
    assert [each.id for each in sandbox.list_sessions()] == ["default"]


def test_leaving_a_blocking_stream_cancels_the_run(blocking: Client) -> None:
    sandbox = blocking.get_sandbox("left")
    for event in sandbox.exec_stream("echo on; sleep 600"):
        if event.name == "stdout":
            break
    assert sandbox.exec("pgrep -c sleep", timeout=20).stdout == "0\n"


def test_ctrl_c_cancels_the_run_and_leaves_the_client_usable(blocking: Client) -> None:
    sandbox = blocking.get_sandbox("interrupted")
    running = threading.Event()

    def interrupt() -> None:
        running.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            sandbox.exec("echo on; sleep 600", on_stdout=lambda _: running.set())
    assert sandbox.exec("pgrep -c sleep", timeout=20).stdout == "0\n"


def test_a_local_client_that_nobody_closed_ends_with_the_process(tmp_path: Path) -> None:
    code = "from interpreter import Client; print(Client.local().get_sandbox().exec('echo x').id)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(tmp_path) == []
