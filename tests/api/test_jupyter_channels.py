"""A kernel's channels as frontends use them: cells, others' cells, input, errors, interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.frontend import Lab, attached, is_idle, of, pack_v1, text_of


@pytest_asyncio.fixture
async def kernel(http: httpx.AsyncClient, session: str) -> AsyncIterator[str]:
    """A context made over our API, by the id that frontends know it by."""
    made = (await http.post(f"{session}/contexts", json={"language": "python"})).json()
    specs = (await http.get("/api/kernelspecs")).json()["kernelspecs"]
    [name] = [n for n, spec in specs.items() if made["id"] in spec["spec"]["display_name"]]
    known = (await http.post("/api/kernels", json={"name": name})).json()
    yield known["id"]
    await http.delete(f"{session}/contexts/{made['id']}")


@pytest_asyncio.fixture
async def context(http: httpx.AsyncClient, session: str, kernel: str) -> str:
    """The same one's address in our API."""
    listed = (await http.get("/api/sessions")).json()
    [path] = [model["path"] for model in listed if model["kernel"]["id"] == kernel]
    return path.rpartition("/")[2]


@pytest_asyncio.fixture(params=["v1", "legacy"])
async def lab(base_url: str, kernel: str, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with attached(base_url, kernel, binary=request.param == "v1") as lab:
        yield lab


async def test_a_cell(lab: Lab) -> None:
    reply, heard = await lab.run("print('out')\n6 * 7")
    assert (reply["status"], reply["execution_count"]) == ("ok", 1)
    kinds = [message["header"]["msg_type"] for message in heard]
    assert kinds == ["status", "execute_input", "stream", "execute_result", "status"]
    assert heard[3]["content"]["data"]["text/plain"] == "42"
    assert text_of(heard) == "out\n"
    assert all(m["parent_header"]["session"] == lab.client for m in heard)
    assert all("cellshell" not in message["metadata"] for message in lab.heard)


async def test_what_is_asked_beside_cells(lab: Lab) -> None:
    await lab.run("value = 1")
    await lab.send("shell", "kernel_info_request", {})
    assert (await lab.until("kernel_info_reply"))["content"]["language_info"]["name"] == "python"
    await lab.send("shell", "complete_request", {"code": "val", "cursor_pos": 3})
    assert "value" in (await lab.until("complete_reply"))["content"]["matches"]
    await lab.send("shell", "is_complete_request", {"code": "for"})
    assert (await lab.until("is_complete_reply"))["content"]["status"] == "invalid"
    wanted = {"hist_access_type": "tail", "n": 10, "output": False, "raw": True}
    await lab.send("shell", "history_request", wanted)
    assert (await lab.until("history_reply"))["content"]["status"] == "ok"
    await lab.send(
        "control", "debug_request", {"type": "request", "seq": 1, "command": "debugInfo"}
    )
    assert (await lab.until("debug_reply"))["content"]["success"] is True


async def test_completion_while_a_cell_runs(lab: Lab) -> None:
    cell = await lab.execute("import time; some_name = 1; print('on'); time.sleep(20)")
    await lab.until("stream")
    await lab.send("shell", "complete_request", {"code": "some_n", "cursor_pos": 6})
    reply = await lab.until("complete_reply")
    assert (reply["channel"], reply["content"]["matches"]) == ("shell", ["some_name"])
    await lab.send("control", "interrupt_request", {})
    assert (await lab.until("interrupt_reply"))["content"]["status"] == "ok"
    assert (await lab.done(cell))[0]["ename"] == "KeyboardInterrupt"


async def test_what_others_run_is_seen(
    base_url: str, kernel: str, lab: Lab, http: httpx.AsyncClient, session: str, context: str
) -> None:
    async with attached(base_url, kernel) as other:
        _, heard = await other.run("print('theirs')")
        seen = await lab.until("stream")
        assert seen["content"]["text"] == "theirs\n"
        assert of(seen) == of(heard[0])
        ran = await http.post(f"{session}/code", json={"code": "print('api')", "context": context})
        assert ran.json()["stdout"] == "api\n"
        while "api\n" not in text_of(lab.heard):
            await lab.next()
        await lab.run("1")
        assert not [m for m in other.heard if m["channel"] == "shell" and of(m) == of(seen)][1:]


async def test_cells_are_executions(
    lab: Lab, http: httpx.AsyncClient, session: str, context: str
) -> None:
    """The environment is shared, and the notebook has them; not the silent ones."""
    await lab.run("import os; os.environ['FROM_LAB'] = 'yes'")
    await lab.run("hidden = 1", silent=True)
    told = (await http.post(f"{session}/exec", json={"command": "echo $FROM_LAB"})).json()
    assert told["stdout"] == "yes\n"
    notebook = (await http.get(f"{session}/contexts/{context}/notebook")).json()
    assert [cell["source"] for cell in notebook["cells"]] == [
        "import os; os.environ['FROM_LAB'] = 'yes'"
    ]


async def test_an_error_aborts_ones_own_cells_only(base_url: str, kernel: str, lab: Lab) -> None:
    async with attached(base_url, kernel) as other:
        first = await lab.execute("import time; time.sleep(0.5); 1 / 0")
        await lab.until("execute_input", first)
        own, theirs = await lab.execute("1"), await other.execute("2")
        assert (await lab.done(first))[0]["ename"] == "ZeroDivisionError"
        reply, heard = await lab.done(own)
        assert reply["status"] == "aborted"
        assert is_idle(heard[-1])
        assert (await other.done(theirs))[0]["status"] == "ok"
        assert (await lab.run("1"))[0]["status"] == "ok"


async def test_an_error_need_not_abort(lab: Lab) -> None:
    first = await lab.execute("1 / 0", stop_on_error=False)
    second = await lab.execute("1")
    assert (await lab.done(first))[0]["status"] == "error"
    assert (await lab.done(second))[0]["status"] == "ok"


async def test_input_is_asked_of_who_ran_the_cell(base_url: str, kernel: str, lab: Lab) -> None:
    async with attached(base_url, kernel) as other:
        cell = await lab.execute("input('name? ')")
        asked = await lab.until("input_request", cell)
        assert asked["content"] == {"prompt": "name? ", "password": False}
        await other.send("stdin", "input_reply", {"status": "ok", "value": "not mine"})
        await lab.send("stdin", "input_reply", {"status": "ok", "value": "mine"})
        _, heard = await lab.done(cell)
        assert "'mine'" in str(heard)
        assert "input_request" not in str(other.heard)


async def test_who_comes_back_is_asked_again(base_url: str, kernel: str) -> None:
    async with attached(base_url, kernel, client="same") as lab:
        await lab.until("input_request", await lab.execute("input()"))
    async with attached(base_url, kernel, client="same") as lab:
        await lab.until("input_request")
        await lab.send("stdin", "input_reply", {"status": "ok", "value": "again"})
        assert (await lab.until("execute_reply"))["content"]["status"] == "ok"


async def test_who_allows_no_input_is_not_asked(lab: Lab) -> None:
    assert (await lab.run("input()", allow_stdin=False))[0]["ename"] == "StdinNotImplementedError"


async def test_options_of_a_cell(lab: Lab) -> None:
    reply, heard = await lab.run("1", user_expressions={"two": "1 + 1"}, silent=True)
    assert reply["user_expressions"]["two"]["data"]["text/plain"] == "2"
    assert {m["header"]["msg_type"] for m in heard} == {"status"}
    await lab.run("5", store_history=False)
    assert (await lab.run("6"))[0]["execution_count"] == 1


async def test_comms_with_buffers(base_url: str, kernel: str) -> None:
    async with attached(base_url, kernel) as lab:
        await lab.run(
            "from comm import get_comm_manager\n"
            "def opened(comm, message):\n"
            "    comm.on_msg(lambda m: comm.send({'n': 1}, buffers=[bytes(b)[::-1] "
            "for b in m['buffers']]))\n"
            "get_comm_manager().register_target('echo', opened)"
        )
        await lab.send("shell", "comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
        content = {"comm_id": "c", "data": {}}
        await lab.send("shell", "comm_msg", content, buffers=(b"\x00\x01\xff", b""))
        echoed = await lab.until("comm_msg")
        assert echoed["buffers"] == [b"\xff\x01\x00", b""]
        assert echoed["content"]["data"] == {"n": 1}


async def test_a_kernel_that_dies_comes_back(lab: Lab) -> None:
    await lab.run("x = 1")
    cell = await lab.execute("import os; os.kill(os.getpid(), 9)")
    reply, _ = await lab.done(cell)
    assert (reply["status"], reply["ename"]) == ("error", "KernelDied")
    states = [m["content"]["execution_state"] for m in lab.heard if "execution_state" in str(m)]
    assert "restarting" in states
    reply, _ = await lab.run("x")
    assert reply["ename"] == "NameError"


async def test_restart_and_interrupt_over_rest(
    http: httpx.AsyncClient, kernel: str, lab: Lab
) -> None:
    await lab.run("x = 1")
    cell = await lab.execute("import time; print(1, flush=True); time.sleep(20)")
    await lab.until("stream", cell)
    assert (await http.post(f"/api/kernels/{kernel}/interrupt")).status_code == 204
    reply, _ = await lab.done(cell)
    assert reply["ename"] == "KeyboardInterrupt"
    assert "python_interrupts" not in str(reply["traceback"])
    answer = await http.post(f"/api/kernels/{kernel}/restart", content=b"{}")
    assert answer.json()["id"] == kernel
    assert (await lab.run("x"))[0]["ename"] == "NameError"
    assert "restarting" not in str(lab.heard)  # which would be a kernel that has died
    assert "starting" in str(lab.heard)


async def test_a_shutdown_leaves_what_others_own(
    lab: Lab, http: httpx.AsyncClient, kernel: str
) -> None:
    await lab.run("x = 7")
    await lab.send("control", "shutdown_request", {"restart": False})
    assert (await lab.until("shutdown_reply"))["content"]["status"] == "ok"
    assert (await http.delete(f"/api/kernels/{kernel}")).status_code == 204
    _, heard = await lab.run("x")
    assert "'7'" in str(heard)


async def test_who_is_gone_leaves_the_cell_running(
    base_url: str, kernel: str, http: httpx.AsyncClient, session: str, context: str
) -> None:
    async with attached(base_url, kernel) as lab:
        await lab.execute("import time; time.sleep(0.5); ran = 'to its end'")
        await lab.until("execute_input")
    ran = await http.post(f"{session}/code", json={"code": "ran", "context": context})
    assert ran.json()["text"] == "'to its end'"


async def test_a_context_that_is_deleted(
    base_url: str, kernel: str, http: httpx.AsyncClient, session: str, context: str
) -> None:
    async with attached(base_url, kernel) as lab:
        cell = await lab.execute("import time; time.sleep(20)")
        await lab.until("execute_input", cell)
        await http.delete(f"{session}/contexts/{context}")
        reply, _ = await lab.done(cell)
        assert reply["ename"] == "context_deleted"
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await lab.next()
        assert "was deleted" in str(closed.value)
        assert lab.heard[-1]["content"] == {"execution_state": "dead"}
    with pytest.raises(InvalidStatus) as refused:
        async with attached(base_url, kernel):
            pass
    assert refused.value.response.status_code == 404
    assert b"kernel_not_found" in (refused.value.response.body or b"")


BAD_FRAMES = [
    b"",
    b"\x00" * 7,
    (1 << 60).to_bytes(8, "little") + bytes(100),
    (6).to_bytes(8, "little") + b"".join(n.to_bytes(8, "little") for n in (56, 20, 60, 60, 60, 60)),
    (6).to_bytes(8, "little")
    + b"".join(n.to_bytes(8, "little") for n in (56, 60, 70, 80, 90, 999)),
    pack_v1([b"shell", b"{", b"{}", b"{}", b"{}"]),
    pack_v1([b"shell", b"[]", b"{}", b"{}", b"{}"]),
    pack_v1([b"shell", b"{}", b"{}", b"{}", b"{}"]),
    pack_v1([b"shell", b'{"msg_id": 1, "msg_type": "x"}', b"{}", b"{}", b"{}"]),
    pack_v1([b"hb", b'{"msg_id": "1", "msg_type": "x"}', b"{}", b"{}", b"{}"]),
    pack_v1([b"shell", b'{"msg_id": "1", "msg_type": "x_request"}', b"{}", b"{}", b"\xff\xfe"]),
    "no JSON",
    "[1]",
    '{"header": 3}',
    '{"header": {"msg_id": "1", "msg_type": "' + "x" * 1000 + '"}}',
]


@pytest.mark.parametrize("frame", BAD_FRAMES)
async def test_what_is_no_message(base_url: str, kernel: str, lab: Lab, frame: bytes | str) -> None:
    """It is told so, and nobody else is disturbed."""
    async with attached(base_url, kernel) as bad:
        await bad.socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await bad.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007
        assert "Jupyter message" in closed.value.rcvd.reason
    assert (await lab.run("1 + 1"))[0]["status"] == "ok"


@pytest.mark.parametrize(
    "content",
    [{}, {"code": 3}, {"code": "a\0b"}, {"code": "1", "silent": "perhaps"}, {"code": None}],
)
async def test_a_cell_that_is_none(lab: Lab, content: dict[str, object]) -> None:
    reply, _ = await lab.done(await lab.send("shell", "execute_request", content))
    assert (reply["status"], reply["ename"]) == ("error", "invalid_request")
    assert (await lab.run("1"))[0]["status"] == "ok"


@pytest.mark.parametrize("megabytes", [15, 50])
async def test_a_cell_of_many_megabytes(
    base_url: str, kernel: str, lab: Lab, megabytes: int
) -> None:
    """Its own frontend is told; a frame of more than 16 MiB closes the connection."""
    code = "x = '" + "y" * (megabytes * 1024 * 1024) + "'; len(x)"
    async with attached(base_url, kernel) as other:
        if megabytes > 16:
            with pytest.raises(ConnectionClosed) as closed:
                await other.run(code)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        else:
            assert str(megabytes * 1024 * 1024) in str((await other.run(code))[1])
    assert (await lab.run("1"))[0]["status"] == "ok"


async def test_ids_may_be_anything(base_url: str, kernel: str) -> None:
    """Two frontends may use the same, and none is an id of ours."""
    async with attached(base_url, kernel) as one, attached(base_url, kernel) as two:
        for lab, word in ((one, "one"), (two, "two")):
            header = b'{"msg_id": "../x y", "msg_type": "execute_request"}'
            code = b'{"code": "print(\'%s\')"}' % word.encode()
            await lab.socket.send(pack_v1([b"shell", header, b"{}", b"{}", code]))
        for lab in (one, two):
            assert (await lab.until("execute_reply"))["parent_header"]["msg_id"] == "../x y"


async def test_a_sandbox_that_is_paused_goes_on(
    http: httpx.AsyncClient, sandbox: str, lab: Lab
) -> None:
    await lab.run("x = 1")
    await http.post(f"{sandbox}/pause")
    assert (await lab.run("x"))[0]["status"] == "ok"
    await http.post(f"{sandbox}/pause")
    await lab.send("shell", "kernel_info_request", {})
    assert (await lab.until("kernel_info_reply"))["content"]["status"] == "ok"


async def test_a_cell_among_thousands_of_requests(lab: Lab) -> None:
    """Widgets send as many while it runs."""
    cell = await lab.execute("import time; print('on', flush=True); time.sleep(1.5); 'done'")
    await lab.until("stream", cell)
    for number in range(2100):
        await lab.send("shell", "comm_msg", {"comm_id": "none", "data": {"value": number}})
    reply, heard = await lab.done(cell)
    assert (reply["status"], "done" in text_of(heard) or "done" in str(heard)) == ("ok", True)


async def test_many_at_once(base_url: str, kernel: str) -> None:
    async def one(number: int) -> None:
        async with attached(base_url, kernel, binary=number % 2 == 0) as lab:
            for _ in range(3):
                _, heard = await lab.run(f"print({number})")
                assert text_of(heard) == f"{number}\n"

    await asyncio.gather(*(one(number) for number in range(10)))


async def test_a_frontend_that_does_not_read(
    base_url: str, kernel: str, http: httpx.AsyncClient, session: str, context: str
) -> None:
    """Neither the kernel nor others wait for it, and it is told what it has missed."""
    async with attached(base_url, kernel, max_queue=1) as slow, attached(base_url, kernel) as lab:
        code = "import os\nfor n in range(150): print(os.urandom(250_000).hex(), flush=True)"
        body = {"code": code, "context": context, "max_output_bytes": 1000}
        ran = await http.post(f"{session}/code", json=body, timeout=20)
        assert ran.json()["status"] == "ok"
        assert (await lab.run("1"))[0]["status"] == "ok"
        while "outputs left out" not in text_of(slow.heard[-1:]):
            await slow.next()
        while not is_idle(slow.heard[-1]):
            await slow.next()
