"""Interrupting code in the Python kernel."""

from __future__ import annotations

import asyncio
import time

import pytest

from kernels.kernel import Kernel
from kernels.messages import Stream
from tests.kernels.runs import Run, run


async def interrupted(kernel: Kernel, code: str) -> Run:
    """Run `code`, which says when to interrupt it."""
    started = asyncio.Event()
    heard: list[Stream] = []

    def hear(event: object) -> None:
        if isinstance(event, Stream) and "go" in event.text:
            heard.append(event)
            started.set()

    async def execute() -> Run:
        return Run(await kernel.execute(code, on_message=hear), None, None)  # type: ignore[arg-type]

    running = asyncio.create_task(execute())
    async with asyncio.timeout(20):
        await started.wait()
        await kernel.interrupt()
        return await running


@pytest.mark.parametrize(
    "code",
    [
        "print('go')\nwhile True: pass",
        "import time; print('go'); time.sleep(60)",
        "import subprocess; print('go'); subprocess.run(['sleep', '60'])",
        "import threading; print('go'); threading.Event().wait()",
        "while True: print('go')",
        "while True: print('go', flush=True)",
        "import os\nwhile True: os.write(1, b'go\\n')",
        "import asyncio; await asyncio.sleep(0); print('go')\nwhile True: pass",
        "import queue; print('go'); queue.Queue().get()",
        "print('go')\nwhile True:\n    try: 1 / 0\n    except Exception: pass",
    ],
)
async def test_it_ends_with_a_keyboard_interrupt(kernel: Kernel, code: str) -> None:
    ran = await interrupted(kernel, code)
    assert ran.ename == "KeyboardInterrupt"
    assert (await run(kernel, "print('fine')")).stdout == "fine\n"


async def test_what_awaits_is_cancelled(kernel: Kernel) -> None:
    ran = await interrupted(kernel, "import asyncio; print('go'); await asyncio.sleep(60)")
    assert ran.ename == "CancelledError"


async def test_a_program_that_hides_the_signal_is_reached(kernel: Kernel) -> None:
    """`os.system` ignores SIGINT in the caller: only the program itself can be ended."""
    ran = await interrupted(kernel, "import os; os.system('echo go; exec sleep 60') and None")
    assert ran.outcome.status == "ok"


async def test_code_may_refuse(kernel: Kernel) -> None:
    code = """
        import time
        print("go")
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
    """
    assert (await interrupted(kernel, code)).outcome.status == "ok"


async def test_an_interrupt_of_nothing_is_not_kept_for_the_next(kernel: Kernel) -> None:
    for code in ("1", "import time; time.sleep(0.2)"):
        await kernel.interrupt()
        assert (await run(kernel, code)).outcome.status == "ok"


async def test_an_answer_comes_however_often_it_is_interrupted(kernel: Kernel) -> None:
    """At any moment: at the start of a cell, in its traceback, at its end."""
    until = time.monotonic() + 3
    while time.monotonic() < until:
        running = asyncio.create_task(run(kernel, "x = [str(n) for n in range(3000)]; 1 / 0"))
        while not running.done():
            await kernel.interrupt()
        assert (await running).outcome.status == "error"
    assert (await run(kernel, "print('fine')")).stdout == "fine\n"
