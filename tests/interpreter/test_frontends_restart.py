"""A service that is killed while a Jupyter frontend is at a kernel: both go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from restarting import serving

from tests.api.frontend import attached, text_of

pytestmark = pytest.mark.box
CODE = """
import os, time
print("begun", flush=True)
while not os.path.exists("/workspace/go"):
    time.sleep(0.05)
print("ended")
'result'
"""


async def test_a_cell_goes_on_and_its_frontend_hears_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        kernel = await service.post("/api/kernels", name="python3--kept")
        async with attached(str(service.client.base_url), kernel["id"], client="lab") as lab:
            running = await lab.execute(CODE)
            await lab.until("stream", running)
            waiting = await lab.execute("6 * 7")
            await lab.send("shell", "kernel_info_request", {})
            await lab.until("kernel_info_reply")  # then the cell is in the queue
            await service.restart()
        async with attached(str(service.client.base_url), kernel["id"], client="lab") as lab:
            await service.exec("touch /workspace/go")
            reply, heard = await lab.done(running)
            assert reply["status"] == "ok"
            assert text_of(heard) == "ended\n"
            reply, heard = await lab.done(waiting)
            assert reply["status"] == "ok"
            assert "'42'" in str(heard)
            assert (await lab.run("1"))[0]["status"] == "ok"
        listed = (await service.client.get("/api/sessions")).json()
        assert kernel["id"] in [model["kernel"]["id"] for model in listed]
        assert (await service.client.delete(f"/api/kernels/{kernel['id']}")).status_code == 204
        sessions = (await service.client.get("/v1/sandboxes/kept")).json()["sessions"]
        assert sessions == ["default"]  # it is still known whose the other one was


async def test_input_that_is_asked_for_by_nobody(tmp_path: Path) -> None:
    """Of the service that passed the question on nothing is left; an interrupt ends the cell."""
    async with serving(tmp_path) as service:
        kernel = await service.post("/api/kernels", name="python3--kept")
        async with attached(str(service.client.base_url), kernel["id"], client="lab") as lab:
            cell = await lab.execute("input()")
            await lab.until("input_request", cell)
            await service.restart()
        async with attached(str(service.client.base_url), kernel["id"], client="lab") as lab:
            await lab.send("control", "interrupt_request", {})
            reply, _ = await lab.done(cell)
            assert reply["ename"] == "KeyboardInterrupt"
        await service.client.delete(f"/api/kernels/{kernel['id']}")
