from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxed_session import BoxedSession, Run, boxed_session, wait_for

from interpreter.errors import InvalidRequest, ProcessExited, WaitTimeout

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
async def session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BoxedSession]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        yield session


@pytest.fixture
async def run(session: BoxedSession, tmp_path: Path) -> AsyncIterator[Run]:
    run = Run(session, tmp_path / "processes")
    yield run
    await run.all.kill_all()
    run.all.close()


async def test_wait_for_exit(run: Run) -> None:
    process = await run("read x; exit 2")
    with pytest.raises(WaitTimeout):
        await wait_for(process, "exit", timeout=0.02)
    await process.write(b"\n")
    assert (await wait_for(process, "exit")).process.exit_code == 2


async def test_wait_for_a_line_that_was_and_one_that_comes(run: Run) -> None:
    process = await run(
        r"printf 'listening on 80'; read x; printf '00\r\n' >&2; printf '80\r\n'; cat"
    )
    found = await wait_for(process, "log", pattern="on 8")
    assert (found.line, found.match) == ("listening on 80", ["on 8"])
    waiting = asyncio.ensure_future(wait_for(process, "log", pattern=r"on (\d+)(x)?$", regex=True))
    await process.write(b"\n")
    found = await waiting
    assert (found.line, found.match) == ("listening on 8080", ["on 8080", "8080", None])


async def test_wait_for_a_line_that_does_not_come(run: Run) -> None:
    process = await run("printf 'one\\nlast'")
    assert (await wait_for(process, "log", pattern="^last$", regex=True)).line == "last"
    for regex in (False, True):
        with pytest.raises(ProcessExited):
            await wait_for(process, "log", pattern="two", regex=regex)
    sleeping = await run("sleep 1000")
    for regex in (False, True):
        with pytest.raises(WaitTimeout):
            await wait_for(sleeping, "log", pattern="x", regex=regex, timeout=0.05)


@pytest.mark.parametrize("pattern", ["(", "*", "[", "(?P<n", "a{2,1}", "x" * 10_001, ""])
async def test_wait_for_a_bad_pattern(run: Run, pattern: str) -> None:
    with pytest.raises(InvalidRequest):
        await wait_for(await run("sleep 1000"), "log", pattern=pattern, regex=True)


async def test_hostile_pattern_does_not_stop_the_loop(run: Run) -> None:
    process = await run(f"echo {'a' * 60}; sleep 1000")
    waiting = asyncio.ensure_future(
        wait_for(process, "log", pattern="(a+)+$b", regex=True, timeout=0.5)
    )
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not waiting.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, loop.time() - last), loop.time()
    with pytest.raises(WaitTimeout):
        await waiting
    assert longest < 0.4


async def test_wait_for_a_port(run: Run) -> None:
    server = "import http.server as h; h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)"
    command = f"""{run.session.box.python} -uc "s = {server[len("import http.server as h; ") :]}
print(s.server_port)
s.serve_forever()" """.replace('"s =', '"import http.server as h\ns =')
    process = await run(command)
    found = await wait_for(process, "log", pattern=r"^(\d+)$", regex=True)
    assert found.match
    port = int(found.match[1] or "")
    assert (await wait_for(process, "port", port=port)).process.id == process.id
    await wait_for(process, "port", port=port, path="/")
    await wait_for(process, "port", port=port, path="no such\r\nthing é", status=404)
    with pytest.raises(WaitTimeout):
        await wait_for(process, "port", port=port, path="/missing", timeout=0.1)
    await process.kill()
    with pytest.raises(ProcessExited):
        await wait_for(process, "port", port=port)


async def test_a_port_that_somebody_else_has_is_not_waited_for(run: Run) -> None:
    serve = f"{run.session.box.python} -u -m http.server -b 127.0.0.1 0"
    first = await run(serve)
    found = await wait_for(first, "log", pattern=r"port (\d+)", regex=True)
    assert found.match
    port = int(found.match[1] or "")
    idle = await run("sleep 1000")
    with pytest.raises(WaitTimeout):
        await wait_for(idle, "port", port=port, timeout=0.3)
    late = await run(f"{serve.removesuffix(' 0')} {port}")
    with pytest.raises(ProcessExited):
        await wait_for(late, "port", port=port)
    below = await run(f"(setsid {serve.removesuffix(' 0')} {port + 1} &); sleep 1000")
    await wait_for(below, "port", port=port + 1)


async def test_wait_without_what_it_needs(run: Run) -> None:
    process = await run("sleep 1000")
    for for_ in ("log", "port"):
        with pytest.raises(InvalidRequest):
            await wait_for(process, for_)
