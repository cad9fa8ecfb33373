"""Bash as a kernel: a session's own shell, as Jupyter frontends use it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.api.frontend import Lab, attached, text_of


@pytest_asyncio.fixture
async def kernel(http: httpx.AsyncClient, session: str) -> str:
    """The session's shell, by the id that frontends know it by."""
    path = session.replace("/v1/sandboxes/", "").replace("/sessions/", "/") + "/$"
    listed = (await http.get("/api/sessions")).json()
    [id] = [model["kernel"]["id"] for model in listed if model["path"] == path]
    return str(id)


@pytest_asyncio.fixture(params=["v1", "legacy"])
async def lab(base_url: str, kernel: str, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with attached(base_url, kernel, binary=request.param == "v1") as lab:
        yield lab


async def test_a_cell_runs_in_the_sessions_own_shell(
    lab: Lab, http: httpx.AsyncClient, session: str
) -> None:
    await http.post(f"{session}/exec", json={"command": "greet() { echo hello $1; }"})
    reply, heard = await lab.run("greet you; echo oops >&2; export FROM_CELL=yes; cd /tmp")
    assert reply["status"] == "ok"
    kinds = [message["header"]["msg_type"] for message in heard]
    assert (kinds[:2], kinds[-1]) == (["status", "execute_input"], "status")
    assert {(m["content"]["name"], m["content"]["text"]) for m in heard[2:-1]} == {
        ("stdout", "hello you\n"),
        ("stderr", "oops\n"),
    }
    code = {"code": "import os; os.environ['FROM_CELL'], os.getcwd()"}
    assert (await http.post(f"{session}/code", json=code)).json()["text"] == "('yes', '/tmp')"


async def test_commands_of_others_are_heard(
    lab: Lab, http: httpx.AsyncClient, session: str
) -> None:
    ran = await http.post(f"{session}/exec", json={"command": "echo theirs; exit 3"})
    assert ran.json()["exit_code"] == 3
    assert (await lab.until("execute_input"))["content"]["code"] == "echo theirs; exit 3"
    assert (await lab.until("stream"))["content"]["text"] == "theirs\n"
    assert (await lab.until("error"))["content"]["evalue"] == "3"
    told = {"command": "printf '\\303\\244'", "encoding": "base64"}
    await http.post(f"{session}/exec", json=told)
    while "ä" not in text_of(lab.heard):
        await lab.next()
    assert not [m for m in lab.heard if m["channel"] == "shell"]


async def test_a_status_that_is_not_0_is_an_error_and_aborts(lab: Lab) -> None:
    first = await lab.execute("sleep 0.3; false")
    await lab.until("execute_input", first)
    second = await lab.execute("echo never")
    reply, _ = await lab.done(first)
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "ExitStatus", "1")
    assert (await lab.done(second))[0]["status"] == "aborted"
    third, fourth = (
        await lab.execute("false", stop_on_error=False),
        await lab.execute("echo on"),
    )
    assert (await lab.done(third))[0]["status"] == "error"
    reply, heard = await lab.done(fourth)
    assert (reply["status"], text_of(heard)) == ("ok", "on\n")


async def test_interrupt_and_restart(
    lab: Lab, http: httpx.AsyncClient, kernel: str, session: str
) -> None:
    cell = await lab.execute("kept=1; echo on; sleep 30")
    await lab.until("stream", cell)
    await lab.send("control", "interrupt_request", {})
    assert (await lab.done(cell))[0]["ename"] == "KeyboardInterrupt"
    assert text_of((await lab.run("echo $kept"))[1]) == "1\n"
    cell = await lab.execute("echo again; sleep 30")
    await lab.until("stream", cell)
    waiting = await lab.execute("echo never")
    await lab.send("shell", "kernel_info_request", {})
    await lab.until("kernel_info_reply")  # then the cell is in the queue
    assert (await http.post(f"/api/kernels/{kernel}/restart")).status_code == 200
    assert (await lab.done(cell))[0]["ename"] == "KeyboardInterrupt"
    assert (await lab.done(waiting))[0]["status"] == "aborted"
    assert text_of((await lab.run("echo [$kept]"))[1]) == "[]\n"
    ran = (await http.post(f"{session}/exec", json={"command": "true"})).json()
    assert ran["notices"] == []  # who asked for the restart knows of it


async def test_what_is_asked_beside_cells(lab: Lab) -> None:
    await lab.send("shell", "kernel_info_request", {})
    told = (await lab.until("kernel_info_reply"))["content"]
    assert (told["status"], told["language_info"]["name"]) == ("ok", "bash")
    for kind in ("history", "comm_info", "is_complete", "inspect", "no_such"):
        await lab.send("shell", f"{kind}_request", {"code": "x", "cursor_pos": 1})
        assert "status" in (await lab.until(f"{kind}_reply"))["content"]
    await lab.send(
        "control", "debug_request", {"type": "request", "seq": 3, "command": "debugInfo"}
    )
    assert (await lab.until("debug_reply"))["content"]["request_seq"] == 3
    await lab.send("shell", "comm_open", {"comm_id": "c", "target_name": "x", "data": {}})
    assert (await lab.run("echo there"))[0]["status"] == "ok"


@pytest.mark.parametrize(
    ("code", "at", "match", "start"),
    [
        ("ech", 3, "echo", 0),
        ("ls | whi", 8, "which", 5),
        ("cat a-f", 7, "a-file", 4),
        ("echo $LONG_N", 12, "$LONG_NAME", 5),
        ("cat a-f 'quoted", 15, None, 9),
        ("", 0, None, 0),
    ],
)
async def test_completion(
    base_url: str, kernel: str, code: str, at: int, match: str | None, start: int
) -> None:
    async with attached(base_url, kernel) as lab:
        await lab.run("touch a-file; export LONG_NAME=1")
        busy = await lab.execute("echo on; sleep 20")
        await lab.until("stream", busy)
        await lab.send("shell", "complete_request", {"code": code, "cursor_pos": at})
        reply = (await lab.until("complete_reply"))["content"]
        assert (reply["cursor_start"], reply["cursor_end"]) == (start, at)
        assert match in reply["matches"] if match else reply["matches"] == []
        await lab.send("control", "interrupt_request", {})
        await lab.done(busy)


async def test_cells_are_executions_and_silent_ones_are_not_told(
    lab: Lab, http: httpx.AsyncClient, session: str
) -> None:
    await lab.run("echo seen")
    _, heard = await lab.run("echo unseen", silent=True)
    assert {m["header"]["msg_type"] for m in heard} == {"status"}
    notebook = (await http.get(f"{session}/notebook")).json()
    sources = [cell["source"] for cell in notebook["cells"]]
    assert sources[-1] == "%%bash\necho seen"


async def test_much_output_of_a_cell_is_bounded(lab: Lab) -> None:
    reply, heard = await lab.run("yes 0123456789 | head -c 3000000")
    assert reply["status"] == "ok"
    assert len(text_of(heard)) <= 3_000_000


@pytest.mark.parametrize("name", ["bash", "bash--{sandbox}"])
async def test_a_shell_of_a_frontends_own(
    http: httpx.AsyncClient, base_url: str, sandbox: str, name: str
) -> None:
    id = sandbox.rpartition("/")[2]
    name = name.format(sandbox=id)
    specs = (await http.get("/api/kernelspecs")).json()["kernelspecs"]
    assert specs[name]["spec"]["language"] == "bash"
    model = (await http.post("/api/kernels", json={"name": name})).json()
    where = f"/v1/sandboxes/{id if '--' in name else 'jupyter'}"
    before = (await http.get(where)).json()["sessions"]
    async with attached(base_url, model["id"]) as lab:
        assert text_of((await lab.run("echo own"))[1]) == "own\n"
        await lab.send("control", "shutdown_request", {"restart": False})
        assert (await lab.until("shutdown_reply"))["content"]["status"] == "ok"
    assert (await http.get(f"/api/kernels/{model['id']}")).status_code == 404
    assert len((await http.get(where)).json()["sessions"]) == len(before) - 1
    await http.delete("/v1/sandboxes/jupyter")


async def test_the_shell_of_an_api_user_stays(
    http: httpx.AsyncClient, session: str, kernel: str
) -> None:
    await http.post(f"{session}/exec", json={"command": "kept=1"})
    assert (await http.delete(f"/api/kernels/{kernel}")).status_code == 204
    told = (await http.post(f"{session}/exec", json={"command": "echo $kept"})).json()
    assert told["stdout"] == "1\n"


async def test_two_at_once_and_one_gone(base_url: str, kernel: str, lab: Lab) -> None:
    async with attached(base_url, kernel) as other:
        gone = await other.execute("sleep 0.3; echo from the one that left")
        await other.until("execute_input", gone)
    cells = [await lab.execute(f"echo {number}") for number in range(5)]
    for number, cell in enumerate(cells):
        reply, heard = await lab.done(cell)
        assert (reply["status"], text_of(heard)) == ("ok", f"{number}\n")
    assert "from the one that left\n" in text_of(lab.heard)
