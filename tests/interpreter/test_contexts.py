"""Code contexts: queue, interrupt, death, timeouts, outputs."""

from __future__ import annotations

import asyncio

import pytest
from asking import Python, Shell

from interpreter.errors import (
    ContextDeleted,
    ContextExists,
    ContextNotFound,
    LanguageAndContext,
    LanguageUnknown,
)
from interpreter.models import CodeResult, CreateContext, RunCode
from interpreter.sessions import Session


async def test_results_as_a_notebook_would_hold_them(python: Python) -> None:
    result = await python("print('a'); import sys; print('b', file=sys.stderr); print('c'); 6 * 7")
    assert result.status == "ok"
    assert (result.stdout, result.stderr, result.text) == ("a\nc\n", "b\n", "42")
    assert result.outputs[-1]["output_type"] == "execute_result"
    assert result.outputs[-1]["execution_count"] == result.execution_count == 1
    assert (await python("1")).execution_count == 2


async def test_an_exception_is_a_result(python: Python) -> None:
    result = await python("print('before'); 1/0")
    assert (result.status, result.stdout) == ("error", "before\n")
    assert result.error is not None
    assert result.error.ename == "ZeroDivisionError"
    assert result.outputs[-1]["output_type"] == "error"


async def test_a_data_frame_is_one_output(python: Python) -> None:
    result = await python("import pandas as pd; pd.DataFrame({'a': [1, 2]})")
    (output,) = result.outputs
    assert {"text/plain", "text/html"} <= set(output["data"])


async def test_a_plot_is_one_png(python: Python) -> None:
    result = await python("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
    pictures = [o for o in result.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1


async def test_a_program_that_reads_its_input_meets_the_end_of_it(python: Python) -> None:
    result = await python("def f(word):\n    !cat; echo {word} '{{}}'; (exit 3)\nf('here')")
    assert (result.status, result.stdout) == ("ok", "here {}\r\n")
    assert (await python("_exit_code")).text == "3"


async def test_what_help_tells_is_an_output(python: Python) -> None:
    (output,) = (await python("len?")).outputs
    assert "number of items" in output["data"]["text/plain"]


async def test_displays_are_updated_and_cleared(python: Python) -> None:
    result = await python(
        "from IPython.display import display, clear_output\n"
        "print('gone'); clear_output(wait=True)\n"
        "h = display('one', display_id=True); h.update('two'); print('kept')"
    )
    kinds = [output["output_type"] for output in result.outputs]
    assert kinds == ["display_data", "stream"]
    assert result.outputs[0]["data"]["text/plain"] == "'two'"
    assert result.stdout == "kept\n"


async def test_input_fails_at_once(python: Python) -> None:
    result = await python("input('name?')")
    assert result.error is not None
    assert result.error.ename == "StdinNotImplementedError"


async def test_output_of_subprocesses(python: Python) -> None:
    result = await python(
        "import os, subprocess\nos.system('echo one')\nsubprocess.run(['echo', 'two'])\n"
        "os.write(1, b'three\\n')\n!echo four"
    )
    assert sorted(result.stdout.split()) == ["four", "one", "three", "two"]


async def test_a_timeout_interrupts(python: Python) -> None:
    await python("kept = 1")
    result = await python("print('before')\nwhile True: pass", timeout=0.3)
    assert (result.status, result.stdout) == ("timeout", "before\n")
    assert (await python("kept")).text == "1"


async def test_what_swallows_interrupts_is_killed(python: Python) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    result = await python(code, timeout=0.3)
    assert result.status == "timeout"
    assert [notice.code for notice in result.notices] == ["killed_harder"]
    after = await python("1 + 1")
    assert (after.status, after.text, after.execution_count) == ("ok", "2", 1)
    assert [notice.code for notice in after.notices] == ["context_restarted"]


async def test_a_timeout_ends_what_the_cell_started(python: Python, shell: Shell) -> None:
    start = "import subprocess; p = subprocess.Popen(['setsid', 'sleep', '%d'])"
    await python(start % 4321)
    await python(start % 4322 + "; import time; time.sleep(1000)", timeout=0.5)
    assert (await shell("ps ax | grep -o '[s]leep 432[12]'")).stdout == "sleep 4321\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import os; os._exit(3)", 3, None),
        ("exit(4)", 4, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", None, "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, "SIGKILL"),
    ],
)
async def test_death_is_told(
    session: Session,
    python: Python,
    shell: Shell,
    code: str,
    exit_code: int | None,
    signal: str | None,
) -> None:
    # ZeroMQ sends in a thread of its own: what is on its way as a process is killed may be lost.
    wait = "import os; os.mkfifo('go'); print('before', flush=True); open('go').read()"
    running = await session.run_code(RunCode(code=f"{wait}; {code}"))
    async for event in running.events():
        if event.name == "output":
            break
    await shell("echo > go; rm go")
    result = await running.result()
    assert isinstance(result, CodeResult)
    assert result.status == "died"
    assert result.stdout == "before\n"
    assert result.error is not None
    assert result.error.ename == "KernelDied"
    assert result.exit is not None
    assert (result.exit.code, result.exit.signal) == (exit_code, signal)
    after = await python("2 + 2")
    assert (after.text, after.execution_count) == ("4", 1)
    assert [notice.code for notice in after.notices] == ["context_restarted"]


async def test_cancel_running_and_queued(session: Session, python: Python) -> None:
    await python("kept = 1")
    running = await session.run_code(RunCode(code="import time; time.sleep(1000)"))
    queued = await session.run_code(RunCode(code="kept = 2"))
    await queued.cancel()
    result = await queued.result()
    assert (result.status, result.execution_count) == ("interrupted", None)  # type: ignore[union-attr]
    await running.cancel()
    assert (await running.result()).status == "interrupted"  # type: ignore[union-attr]
    assert (await python("kept")).text == "1"


async def test_runs_queue_in_order(session: Session, python: Python) -> None:
    await python("order = []")
    runs = [await session.run_code(RunCode(code=f"order.append({n})")) for n in range(20)]
    await asyncio.gather(*(run.result() for run in runs))
    assert (await python("order")).text == str(list(range(20)))


async def test_a_context_and_the_shell_run_side_by_side(session: Session, shell: Shell) -> None:
    running = await session.run_code(RunCode(code="import time; time.sleep(1000)"))
    assert (await shell("echo meanwhile")).stdout == "meanwhile\n"
    await running.cancel()


START = """
import subprocess, time
subprocess.Popen(["setsid", "--fork", "sleep", "{0}"]).wait()
while subprocess.run(["pgrep", "-fx", "sleep {0}"], stdout=subprocess.DEVNULL).returncode:
    time.sleep(0.01)
"""


async def test_what_a_cell_started_goes_with_its_kernel(
    session: Session, python: Python, shell: Shell
) -> None:
    await python(START.format(7001))
    await session.context("python").restart()
    assert (await shell("pgrep -fx 'sleep 7001'")).exit_code == 1
    await python(START.format(7002))
    await session.delete_context("python")
    assert (await shell("pgrep -fx 'sleep 7002'")).exit_code == 1


async def test_a_kernel_whose_output_is_cut_off(python: Python) -> None:
    result = await python("get_ipython().kernel.iopub_socket.close()")
    assert [notice.code for notice in result.notices] == ["output_lost"]


async def test_interrupt_and_restart(session: Session, python: Python) -> None:
    await python("x = 1")
    context = session.context("python")
    running = await session.run_code(RunCode(code="import time; print(1); time.sleep(1000)"))
    async for event in running.events():
        if event.name == "output":
            break
    await context.interrupt()
    result = await running.result()
    assert result.error.ename == "KeyboardInterrupt"  # type: ignore[union-attr]
    assert (await context.restart()).state == "idle"
    assert (await python("x")).error.ename == "NameError"  # type: ignore[union-attr]


async def test_own_contexts(session: Session) -> None:
    context = await session.create_context(CreateContext(id="mine", env={"ONLY": "here"}))
    assert context.info().state == "idle"
    with pytest.raises(ContextExists):
        await session.create_context(CreateContext(id="mine"))
    run = await session.run_code(RunCode(code="import os; os.environ['ONLY']", context="mine"))
    assert (await run.result()).text == "'here'"  # type: ignore[union-attr]
    assert "ONLY" not in session.environment.variables
    running = await session.run_code(RunCode(code="import time; time.sleep(99)", context="mine"))
    await session.delete_context("mine")
    with pytest.raises(ContextDeleted):
        await running.result()
    with pytest.raises(ContextNotFound):
        await session.run_code(RunCode(code="1", context="mine"))


async def test_what_makes_no_sense_is_refused(session: Session) -> None:
    with pytest.raises(LanguageUnknown):
        await session.run_code(RunCode(code="1", language="klingon"))
    with pytest.raises(LanguageAndContext):
        await session.run_code(RunCode(code="1", language="python", context="python"))


async def test_fifty_megabytes(python: Python) -> None:
    result = await python("print('x' * 50_000_000)")
    assert result.truncated
    assert len(result.stdout) < 1_100_000
    assert result.omitted is not None
    assert result.omitted.stdout > 48_000_000


async def test_late_output_of_a_thread_stays_with_its_cell(
    session: Session, python: Python
) -> None:
    first = await session.run_code(
        RunCode(
            code="import threading\ngo, said = threading.Event(), threading.Event()\n"
            "def late():\n  go.wait(); print('late', flush=True); said.set()\n"
            "threading.Thread(target=late).start()"
        )
    )
    await first.result()
    second = await python("go.set(); said.wait(); print('mine')")
    assert second.stdout == "mine\n"
    async with asyncio.timeout(5):
        while "late" not in str(first.snapshot().outputs):  # type: ignore[union-attr]
            await python("1")


async def test_names_of_ours_are_not_the_users(python: Python, shell: Shell) -> None:
    await shell(
        "echo 'x = 1' | tee api.py kernels.py interpreter.py random.py numpy.py > /dev/null"
    )
    result = await python("import api, kernels, interpreter; (api.x, kernels.x, interpreter.x)")
    assert result.text == "(1, 1, 1)"
    assert (await python("[n for n in dir() if 'cell' in n.lower()]")).text == "[]"
    missing = await python("import fastapi")
    assert missing.error is not None
    assert missing.error.ename == "ModuleNotFoundError"


@pytest.mark.parametrize("language", ["javascript", "typescript"])
async def test_deno(session: Session, python: Python, shell: Shell, language: str) -> None:
    pytest.importorskip("deno", reason="the extra `deno` is not installed")
    await shell("export FROM='sh \"q\"'; cd /tmp")
    code = "Deno.env.set('TO', 'js \\n$x'); Deno.chdir('/usr'); [Deno.env.get('FROM'), 1 + 1]"
    result = await python(code, language=language)
    assert result.status == "ok"
    assert "sh" in str(result.text)
    assert result.environment_changes.set == ["TO"]
    assert (await shell('printf "%s" "$TO"; pwd')).stdout == "js \n$x/usr\n"
    dead = await python("Deno.exit(3)", language=language)
    assert dead.status == "died"


async def test_a_killed_cell_takes_what_it_started_along(python: Python, shell: Shell) -> None:
    code = "import signal, subprocess\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + (
        "subprocess.Popen(['setsid', 'sleep', '4323'])\nwhile True: pass"
    )
    result = await python(code, timeout=0.5)
    assert [notice.code for notice in result.notices] == ["killed_harder"]
    assert (await shell("ps ax | grep -c '[s]leep 4323'")).stdout == "0\n"


async def test_cancelled_while_the_kernel_starts(session: Session, python: Python) -> None:
    execution = await session.run_code(RunCode(code="open('ran', 'w')"))
    await asyncio.sleep(0)
    await execution.cancel()
    result = await execution.result()
    assert (result.status, result.execution_count) == ("interrupted", None)  # type: ignore[union-attr]
    assert (await python("import os; os.path.exists('ran')")).text == "False"
