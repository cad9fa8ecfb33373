"""Python kernels that end, and what is said of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from kernels.kernel import Death, Kernel
from kernels.messages import Stream
from tests.kernels.runs import run


@pytest.mark.parametrize(
    ("code", "death"),
    [
        ("import os; os._exit(3)", Death(3, None)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Death(None, "SIGSEGV")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Death(None, "SIGKILL")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Death(None, "SIGTERM")),
        ("import os; os.abort()", Death(None, "SIGABRT")),
        ("import ctypes; ctypes.string_at(0)", Death(None, "SIGSEGV")),
        ("import os, threading; threading.Thread(target=os._exit, args=(4,)).start();"
         "threading.Event().wait()", Death(4, None)),
    ],
)  # fmt: skip
async def test_a_death_is_told_promptly(own_kernel: Kernel, code: str, death: Death) -> None:
    began = time.monotonic()
    ran = await run(own_kernel, code)
    assert (ran.outcome.status, ran.outcome.death) == ("died", death)
    assert time.monotonic() - began < 5
    assert own_kernel.died.result() == death


@pytest.mark.parametrize(
    "code",
    [
        "import os; print('before'); os._exit(3)",
        "import os, sys; print('before', file=sys.stderr); print('x' * 5_000_000); os._exit(3)",
        "import os; print('x' * 20_000_000); print('before'); os._exit(3)",
        "import os; os.system('echo before'); os._exit(3)",
    ],
)
async def test_what_was_printed_before_an_exit_arrives(own_kernel: Kernel, code: str) -> None:
    ran = await run(own_kernel, code)
    assert ran.outcome.death == Death(3, None)
    assert "before\n" in ran.stdout + ran.stderr


async def test_a_forked_child_ends_as_ever(own_kernel: Kernel) -> None:
    code = "import os\nif (pid := os.fork()) == 0: os._exit(5)\nos.waitpid(pid, 0)[1] >> 8"
    assert (await run(own_kernel, code)).text == "5"


async def test_those_that_wait_are_told_too(own_kernel: Kernel) -> None:
    ran = await asyncio.gather(
        *(run(own_kernel, code) for code in ("import time; time.sleep(0.1)", "os._exit(1)", "1")),
        run(own_kernel, "import os; os._exit(2)"),
        run(own_kernel, "3"),
    )
    assert [each.outcome.status for each in ran] == ["ok", "error", "ok", "died", "died"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("exit()", 0), ("quit(3)", 3), ("exit('text')", 1), ("exit(256 + 7)", 7)],
)
async def test_exit_ends_the_kernel_after_its_report(
    own_kernel: Kernel, code: str, status: int
) -> None:
    ran = await run(own_kernel, f"import os; os.environ['A'] = '1'; print('x')\n{code}")
    assert ran.outcome.death == Death(status, None)
    assert ran.outcome.report is not None
    assert (ran.outcome.report.exit, ran.outcome.report.set) == (status, {"A": "1"})
    assert ran.stdout == "x\n"
    assert not own_kernel.running


async def test_a_lone_exit_is_called(own_kernel: Kernel) -> None:
    assert (await run(own_kernel, "exit")).outcome.death == Death(0, None)


async def test_exit_ends_the_cell_too(own_kernel: Kernel) -> None:
    ran = await run(own_kernel, "print('x'); exit(); print('y')")
    assert ran.stdout == "x\n"
    assert len(ran.output.outputs()) == 1


async def test_exit_ends_a_kernel_whose_threads_go_on(own_kernel: Kernel) -> None:
    threads = "import threading\nthreading.Thread(target=threading.Event().wait).start()"
    ran = await run(own_kernel, f"{threads}\nexit()")
    assert ran.outcome.death is not None


async def test_an_exit_that_is_caught_is_none(kernel: Kernel) -> None:
    ran = await run(kernel, "try: exit()\nexcept SystemExit: print('caught')")
    assert (ran.stdout, ran.outcome.status, ran.outcome.death) == ("caught\n", "ok", None)


async def test_sys_exit_is_an_error_and_the_names_stay(kernel: Kernel) -> None:
    ran = await run(kernel, "x = 1; import sys; sys.exit(2)")
    assert (ran.ename, ran.outcome.death, ran.stderr) == ("SystemExit", None, "")
    assert (await run(kernel, "x")).text == "1"


async def test_a_kernel_that_swallows_everything_can_be_killed(own_kernel: Kernel) -> None:
    code = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                while True: pass
            except BaseException: pass
    """
    running = asyncio.create_task(run(own_kernel, code))
    for _ in range(3):
        await own_kernel.interrupt()
    assert not running.done()
    own_kernel.kill()
    assert (await running).outcome.death == Death(None, "SIGKILL")


async def test_shutdown_ends_a_kernel_that_refuses(own_kernel: Kernel) -> None:
    started = asyncio.Event()
    code = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                while True: print("on", flush=True)
            except BaseException: pass
    """
    running = asyncio.create_task(
        own_kernel.execute(
            code, on_message=lambda event: started.set() if isinstance(event, Stream) else None
        )
    )
    await started.wait()
    await own_kernel.shutdown()
    assert (await running).status == "died"
