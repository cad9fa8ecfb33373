"""What code in the Python kernel puts out, and to which run it belongs."""

from __future__ import annotations

import asyncio

import pytest

from kernels.kernel import Kernel
from kernels.messages import Stream
from tests.kernels.runs import run


@pytest.mark.parametrize(
    "code",
    [
        "print('text')",
        "import os; os.system('echo text')",
        "import os; os.write(1, b'text\\n');",
        "import subprocess; subprocess.run(['echo', 'text']);",
        "import subprocess, sys; subprocess.run(['echo', 'text'], stdout=sys.stdout);",
        "import sys; sys.__stdout__.write('text\\n');",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print, "
        "args=('text',)); p.start(); p.join()",
        "import os\nif os.fork() == 0:\n    print('text'); os._exit(0)\nos.wait();",
        "from concurrent.futures import *; ThreadPoolExecutor().submit(print, 'text').result()",
        "import sys; sys.stdout.close(); print('text')",
        "import os; os.popen('sleep 0.01; echo text >&2').read(); print(end='')",
    ],
)
async def test_output_is_there_before_the_end(kernel: Kernel, code: str) -> None:
    for _ in range(5):
        ran = await run(kernel, code)
        assert ran.outcome.status == "ok"
        assert ran.stdout + ran.stderr == "text\n"


async def test_text_of_any_kind_arrives(kernel: Kernel) -> None:
    text = "äöü€😀\0\x1b[31m\r\n" * 3
    assert (await run(kernel, f"print({text!r}, end='')")).stdout == text
    assert (await run(kernel, "print('\\udcff', '\\ud83d')")).stdout == "� �\n"
    assert (await run(kernel, "import os; os.write(1, b'\\xff\\xfe\\n');")).stdout == "��\n"
    code = "import os\nfor byte in '€😀'.encode() * 50: os.write(1, bytes([byte]))"
    assert (await run(kernel, code)).stdout == "€😀" * 50


async def test_order_is_kept_between_the_kernel_and_its_programs(kernel: Kernel) -> None:
    code = "import os\nfor n in range(5):\n    print('a', n)\n    os.system(f'echo b {n}')"
    ran = await run(kernel, f"import sys\n{code.replace('print(', 'print(flush=True, *(')})")
    code = "import os\nfor n in range(5):\n    os.system(f'echo b {n}')\n    print('a', n)"
    ran = await run(kernel, code)
    assert ran.stdout == "".join(f"b {n}\na {n}\n" for n in range(5))


async def test_output_streams_at_once(kernel: Kernel) -> None:
    first = asyncio.Event()
    running = asyncio.create_task(
        kernel.execute(
            "import time\nprint('first')\ntime.sleep(60)",
            on_message=lambda event: first.set() if isinstance(event, Stream) else None,
        )
    )
    async with asyncio.timeout(5):
        await first.wait()
    assert not running.done()
    await kernel.interrupt()
    await running


async def test_much_output_arrives_whole(kernel: Kernel) -> None:
    sizes: list[int] = []

    def count(event: object) -> None:
        if isinstance(event, Stream):
            sizes.append(len(event.text))

    await kernel.execute("print('x' * 50_000_000)", on_message=count)
    assert sum(sizes) == 50_000_001
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("flush", [False, True])
async def test_many_prints_arrive_in_order(kernel: Kernel, flush: bool) -> None:
    count = 5_000 if flush else 100_000
    ran = await run(kernel, f"for n in range({count}): print(n, flush={flush})")
    assert ran.stdout == "".join(f"{n}\n" for n in range(count))
    assert len(ran.output.outputs()) == 1


async def test_a_thread_writes_to_its_own_run(kernel: Kernel) -> None:
    first = await run(
        kernel,
        "import threading; go = threading.Event()\n"
        "def work():\n    go.wait(); print('late'); display('shown')\n"
        "thread = threading.Thread(target=work); thread.start(); print('soon')",
    )
    second = await run(kernel, "go.set(); thread.join(); print('second')")
    assert (first.stdout, second.stdout) == ("soon\n", "second\n")
    assert first.late.stream("stdout") == "late\n"
    assert len(first.late.outputs()) == 2
    assert len(second.output.outputs()) == 1


async def test_a_pool_writes_to_the_run_that_asked(kernel: Kernel) -> None:
    await run(kernel, "from concurrent.futures import *; pool = ThreadPoolExecutor(1)")
    first = await run(kernel, "pool.submit(print, 'first').result()")
    second = await run(kernel, "pool.submit(print, 'second').result()")
    assert (first.stdout, second.stdout) == ("first\n", "second\n")


async def test_a_program_left_behind_writes_to_its_own_run(kernel: Kernel) -> None:
    start = (
        "import subprocess; cat = subprocess.Popen(['cat'], stdin=subprocess.PIPE); print('soon')"
    )
    first = await run(kernel, start)
    second = await run(
        kernel, "cat.communicate(b'late\\n'); print('own'); subprocess.run(['echo', 'own']);"
    )
    assert (first.stdout, second.stdout) == ("soon\n", "own\nown\n")
    assert first.late.stream("stdout") == "late\n"


async def test_a_task_writes_to_its_own_run(kernel: Kernel) -> None:
    first = await run(
        kernel,
        "import asyncio; go = asyncio.Event()\n"
        "async def work():\n    await go.wait(); print('late')\n"
        "task = asyncio.create_task(work())",
    )
    second = await run(kernel, "go.set(); await task; print('second')")
    assert second.stdout == "second\n"
    assert first.late.stream("stdout") == "late\n"


async def test_a_table_is_one_output(kernel: Kernel) -> None:
    ran = await run(kernel, "import pandas as pd; pd.DataFrame({'a': [1, 2]})")
    [output] = ran.output.outputs()
    assert set(output["data"]) == {"text/plain", "text/html"}


@pytest.mark.parametrize("ending", ["plt.show()", "None", "fig"])
async def test_a_plot_is_one_image(kernel: Kernel, ending: str) -> None:
    code = "import matplotlib.pyplot as plt; fig, ax = plt.subplots(); ax.plot([1, 2]);"
    ran = await run(kernel, f"{code}\n{ending}")
    images = [out for out in ran.output.outputs() if "image/png" in out.get("data", {})]
    assert len(images) == (2 if ending == "fig" else 1)
    assert len(ran.output.outputs()) == len(images)


async def test_displays_update_and_clear(kernel: Kernel) -> None:
    code = (
        "from IPython.display import clear_output\n"
        "handle = display('a', display_id=True); handle.update('b')"
    )
    assert (await run(kernel, code)).output.outputs()[0]["data"]["text/plain"] == "'b'"
    ran = await run(kernel, "print('gone'); clear_output(wait=True); print('stays')")
    assert ran.stdout == "stays\n"


async def test_what_cannot_be_shown_breaks_nothing(kernel: Kernel) -> None:
    await run(
        kernel,
        "class Odd:\n"
        "    def __repr__(self): raise RuntimeError('no repr')\n"
        "class Torn:\n"
        "    def _repr_html_(self): return '<b>\\ud800</b>'\n"
        "    def __repr__(self): return 'plain'\n",
    )
    assert (await run(kernel, "Odd()")).outcome.status == "error"
    [shown] = (await run(kernel, "Torn()")).output.outputs()
    assert shown["data"] == {"text/plain": "plain", "text/html": "<b>�</b>"}


async def test_a_stdout_of_ones_own_stays_until_it_is_closed(kernel: Kernel) -> None:
    await run(kernel, "import io, sys; ours = sys.stdout; sys.stdout = io.StringIO()")
    assert (await run(kernel, "print('kept')")).stdout == ""
    assert (await run(kernel, "text = sys.stdout.getvalue(); sys.stdout.close()")).stdout == ""
    assert (await run(kernel, "print(repr(text))")).stdout == "'kept\\n'\n"


async def test_forged_messages_end_nothing(kernel: Kernel) -> None:
    code = """
        import time
        kernel = get_ipython().kernel
        send, socket, parent = kernel.session.send, kernel.iopub_socket, kernel.get_parent()
        send(socket, "status", {"execution_state": "idle"}, parent=parent)
        send(socket, "stream", {"name": 7, "text": ["x"]}, parent=parent)
        send(socket, "display_data", {"data": {"text/plain": 1, "image/png": None}}, parent=parent)
        socket.send_multipart([b"x", b"<IDS|MSG>", b"not signed", b"{}", b"{}", b"{}", b"{}"])
        time.sleep(0.2)
        print("the end")
    """
    ran = await run(kernel, code)
    assert ran.stdout == "the end\n"
    assert len(ran.output.outputs()) == 1


async def test_what_is_too_long_for_a_message_leaves_a_sentence(kernel: Kernel) -> None:
    code = "display({'text/plain': 'x', 'text/html': 'y' * 120_000_000}, raw=True)"
    [output] = (await run(kernel, code)).output.outputs()
    assert "bytes left out" in output["data"]["text/plain"]


async def test_input_is_an_error_at_once(kernel: Kernel) -> None:
    assert (await run(kernel, "input('name?')")).ename == "StdinNotImplementedError"
    assert (await run(kernel, "import sys; sys.stdin.read()")).text == "''"


async def test_nothing_is_printed_that_nobody_asked_for(own_kernel: Kernel) -> None:
    for code in ("1", "import sys; sys.exit(3)", "%pip --version", "%timeit -n1 -r1 pass"):
        ran = await run(own_kernel, code)
        assert ran.stderr == ""
    assert (await run(own_kernel, "pass")).output.outputs() == []
