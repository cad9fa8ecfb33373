"""A kernel's life, and code run in it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import zmq
from jupyter_client.kernelspec import KernelSpec

from kernels.errors import KernelFailed, LanguageUnavailable
from kernels.kernel import Death, Kernel
from kernels.messages import Stream
from kernels.report import Report
from tests.kernels.conftest import LocalPlace, StartKernel
from tests.kernels.runs import Run, run


async def test_code_runs_and_counts(own_kernel: Kernel) -> None:
    first, second = await run(own_kernel, "x = 20\nx + 1"), await run(own_kernel, "x * 2")
    assert (first.text, first.outcome.execution_count, first.outcome.status) == ("21", 1, "ok")
    assert (second.text, own_kernel.execution_count) == ("40", 2)


async def test_an_error_says_what_and_where(kernel: Kernel) -> None:
    ran = await run(kernel, "print('before')\n1 / 0")
    assert ran.outcome.status == "error"
    assert ran.outcome.error is not None
    assert ran.outcome.error.evalue == "division by zero"
    assert "ZeroDivisionError" in "".join(ran.outcome.error.traceback)
    assert ran.stdout == "before\n"
    assert [output["output_type"] for output in ran.output.outputs()] == ["stream", "error"]


async def test_silent_runs_do_not_count(own_kernel: Kernel) -> None:
    assert (await run(own_kernel, "1 + 1", silent=True)).output.outputs() == []
    await run(own_kernel, "1")
    assert own_kernel.execution_count == 1


@pytest.mark.parametrize("code", ["", "\n", "# only a comment", "'\\0\"\\'\\n'", "s = 'ä€😀'; s"])
async def test_any_code_gets_its_reply(kernel: Kernel, code: str) -> None:
    assert (await run(kernel, code)).outcome.status == "ok"


async def test_broken_code_is_an_error(kernel: Kernel) -> None:
    for code in ("(", "\0", "def", "\ud800", "%no_such_magic", "x" * 100_000):
        assert (await run(kernel, code)).outcome.status == "error"
    assert (await run(kernel, "'alive'")).text == "'alive'"


async def test_runs_are_queued_in_order(kernel: Kernel) -> None:
    ran = await asyncio.gather(*(run(kernel, f"print({number}); {number}") for number in range(20)))
    assert [each.text for each in ran] == [str(number) for number in range(20)]
    assert [each.stdout for each in ran] == [f"{number}\n" for number in range(20)]


async def test_one_error_does_not_abort_the_queue(kernel: Kernel) -> None:
    failed, fine = await asyncio.gather(run(kernel, "1 / 0"), run(kernel, "2"))
    assert (failed.outcome.status, fine.outcome.status) == ("error", "ok")


async def test_a_caller_that_goes_away_leaves_the_kernel_in_order(kernel: Kernel) -> None:
    started = asyncio.Event()
    late: list[object] = []
    task = asyncio.create_task(
        kernel.execute(
            "import time\nprint('on', flush=True)\ntime.sleep(60)",
            on_message=lambda event: started.set() if isinstance(event, Stream) else None,
            on_late=late.append,
        )
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await kernel.interrupt()
    assert (await run(kernel, "1")).text == "1"
    assert late


async def test_the_environment_changes_of_an_abandoned_cell_are_told(
    start_kernel: StartKernel,
) -> None:
    reports: asyncio.Queue[Report] = asyncio.Queue()
    kernel = await start_kernel(on_report=reports.put_nowait)
    started = asyncio.Event()
    code = "import os, time\nos.environ['A'] = '1'\nprint('on', flush=True)\ntime.sleep(60)"
    task = asyncio.create_task(
        kernel.execute(
            code, on_message=lambda event: started.set() if isinstance(event, Stream) else None
        )
    )
    await started.wait()
    task.cancel()
    await kernel.interrupt()
    assert (await reports.get()).set == {"A": "1"}


async def test_restart_begins_anew(own_kernel: Kernel, environment: dict[str, str]) -> None:
    await run(own_kernel, "x = 1")
    old = own_kernel.pid
    await own_kernel.restart(env={**environment, "NEW": "value"}, cwd="/")
    assert own_kernel.execution_count == 0
    assert own_kernel.pid != old
    ran = await run(own_kernel, "import os; 'x' in globals(), os.environ['NEW'], os.getcwd()")
    assert ran.text == "(False, 'value', '/')"
    assert ran.outcome.execution_count == 1


async def test_restart_ends_what_runs(own_kernel: Kernel, environment: dict[str, str]) -> None:
    looping = asyncio.create_task(run(own_kernel, "while True: pass"))
    await asyncio.sleep(0)
    await own_kernel.restart(env=environment, cwd="/")
    assert (await looping).outcome.status == "died"
    assert (await run(own_kernel, "1")).text == "1"


async def test_shutdown_lets_a_kernel_finish(
    own_kernel: Kernel, place: LocalPlace, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    await run(
        own_kernel, f"import atexit, pathlib; atexit.register(pathlib.Path({str(mark)!r}).touch)"
    )
    await own_kernel.shutdown()
    assert own_kernel.died.result() == Death(0, None)
    assert mark.exists()
    assert not own_kernel.running
    assert list(place.sockets.iterdir()) == []
    await own_kernel.shutdown()


async def test_what_has_ended_takes_no_requests(own_kernel: Kernel) -> None:
    own_kernel.kill()
    assert await own_kernel.died == Death(None, "SIGKILL")
    for ask in (own_kernel.execute("1"), own_kernel.interrupt(), own_kernel.complete("x", 1)):
        with pytest.raises(KernelFailed, match="expected a running kernel"):
            await ask
    own_kernel.kill()


async def test_start_twice_is_refused(kernel: Kernel) -> None:
    with pytest.raises(KernelFailed, match="it runs"):
        await kernel.start(env={}, cwd="/")
    assert (await run(kernel, "1")).text == "1"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/no/such/program"], "does not"),
        (["/bin/sh", "-c", "exit 7"], "exit code 7"),
        (["/bin/sh", "-c", "kill -9 $$"], "SIGKILL"),
    ],
)
async def test_a_kernel_that_does_not_come_up_says_why(
    start_kernel: StartKernel, argv: list[str], said: str
) -> None:
    with pytest.raises(KernelFailed, match=said):
        await start_kernel(spec=KernelSpec(argv=argv, language="none"))


async def test_a_kernel_that_hangs_at_start_is_ended(
    start_kernel: StartKernel, place: LocalPlace
) -> None:
    spec = KernelSpec(argv=["/bin/sleep", "100"], language="none")
    with pytest.raises(KernelFailed, match=r"within 0\.2 s"):
        await start_kernel(spec=spec, timeout=0.2)
    for group in place.groups:
        with pytest.raises(ProcessLookupError):
            os.kill(group, 0)


async def test_a_start_that_is_cancelled_leaves_nothing(
    start_kernel: StartKernel, place: LocalPlace
) -> None:
    starting = asyncio.create_task(start_kernel())
    await place.spawned.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ProcessLookupError):
        os.kill(place.groups[0], 0)
    assert list(place.sockets.iterdir()) == []


async def test_a_socket_path_that_is_too_long_is_refused(
    python_spec: KernelSpec, zmq_context: zmq.Context, tmp_path: Path
) -> None:
    place = LocalPlace(tmp_path / ("long" * 30))
    with pytest.raises(KernelFailed, match="107 bytes"):
        await Kernel(python_spec, place, zmq_context).start(env={}, cwd="/")


async def test_completion_inspection_and_variables_answer_while_a_cell_runs(
    own_kernel: Kernel,
) -> None:
    await run(own_kernel, "import time; number = 5; text = 'x'")
    busy = asyncio.create_task(run(own_kernel, "time.sleep(60)"))
    await asyncio.sleep(0)
    completed = await own_kernel.complete("numb", 4)
    assert "number" in completed["matches"]
    assert (await own_kernel.inspect("number", 3))["found"]
    found = {variable.name: variable.preview for variable in await own_kernel.variables()}
    assert found == {"number": "5", "text": "'x'"}
    assert not busy.done()
    await own_kernel.interrupt()
    assert (await busy).ename == "KeyboardInterrupt"


async def test_a_plain_kernel_works_too(start_kernel: StartKernel, kernel_python: str) -> None:
    argv = [kernel_python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = await start_kernel(spec=KernelSpec(argv=argv, language="python"))
    ran = await run(kernel, "print('out'); 1 + 1")
    assert (ran.text, ran.stdout, ran.outcome.report) == ("2", "out\n", None)
    assert "matches" in await kernel.complete("pri", 3)
    with pytest.raises(LanguageUnavailable):
        await kernel.variables()
    looping = asyncio.create_task(run(kernel, "print('on', flush=True)\nwhile True: pass"))
    await asyncio.wait({looping}, timeout=0.3)
    await kernel.interrupt()
    assert (await looping).ename == "KeyboardInterrupt"


async def test_another_service_takes_over_a_running_kernel(
    own_kernel: Kernel, place: LocalPlace, zmq_context: zmq.Context, python_spec: KernelSpec
) -> None:
    await run(own_kernel, "x = 1")
    code = "print('one', flush=True)\nimport time\nwhile x < 2: time.sleep(0.01)\nprint('two'); x"
    printed = asyncio.Event()
    waiting = asyncio.create_task(
        own_kernel.execute(
            code, id="exec-1", on_message=lambda event: isinstance(event, Stream) and printed.set()
        )
    )
    await printed.wait()
    seen = own_kernel.seen
    await own_kernel.detach()
    assert (await waiting).status == "aborted"
    assert place.processes[-1].running
    for repeated in range(2):
        heir = Kernel(python_spec, place, zmq_context, record=own_kernel.record)
        await heir.attach(place.processes[-1])
        again = asyncio.create_task(run(heir, code, id="exec-1"))
        await run_aside(heir)
        assert await heir.catch_up(seen)
        if not repeated:
            await heir.interrupt()
        ran = await again
        assert ran.stdout == ""
        assert ran.ename == "KeyboardInterrupt"
        assert (await run(heir, "x")).text == "1"
        assert heir.execution_count == 3 + repeated
        seen = heir.seen
        await heir.detach()
    await heir.attach(place.processes[-1])
    await heir.shutdown(now=True)
    assert heir.died.result() == Death(None, signal.SIGKILL.name)


async def test_requests_of_one_service_are_not_taken_for_those_of_another(
    own_kernel: Kernel, place: LocalPlace, zmq_context: zmq.Context, python_spec: KernelSpec
) -> None:
    """Though both have the same process, and ask as many."""
    await run(own_kernel, "n = 0")
    for _ in range(10):
        await run(own_kernel, "n += 1")
    await own_kernel.detach()
    heir = Kernel(python_spec, place, zmq_context, record=own_kernel.record)
    await heir.attach(place.processes[-1])
    await heir.catch_up(0)
    async with asyncio.timeout(20):
        for _ in range(10):
            await run(heir, "n += 1")
    assert (await run(heir, "n")).text == "20"
    await heir.shutdown(now=True)


async def test_what_was_said_while_nobody_listened(
    own_kernel: Kernel, place: LocalPlace, zmq_context: zmq.Context, python_spec: KernelSpec
) -> None:
    process, heirs = place.processes[-1], [own_kernel]
    go, done = place.sockets / "go", place.sockets / "done"
    os.mkfifo(go)
    os.mkfifo(done)

    async def attached() -> Kernel:
        await heirs[-1].detach()
        heirs.append(Kernel(python_spec, place, zmq_context, record=own_kernel.record))
        await heirs[-1].attach(process)
        return heirs[-1]

    async def unheard(code: str, id: str) -> tuple[Run, bool]:
        """`code` runs while no service is there; what the next one has of it."""
        waits = f"open({str(go)!r}).read()\n{code}\nopen({str(done)!r}, 'w').close()\n6 * 7"
        begun = asyncio.Event()
        left = asyncio.create_task(
            heirs[-1].execute(waits, id=id, on_message=lambda _: begun.set())
        )
        await begun.wait()
        seen = heirs[-1].seen
        await heirs[-1].detach()
        assert (await left).status == "aborted"
        await asyncio.to_thread(go.write_text, "")
        await asyncio.to_thread(done.read_text)
        again = asyncio.create_task(run(await attached(), waits, id=id))
        await run_aside(heirs[-1])
        whole = await heirs[-1].catch_up(seen)
        return await again, whole

    ran, whole = await unheard("for i in range(20_000): print(i)", "many")
    assert (ran.stdout.split()[0], ran.stdout.split()[-1], ran.text) == ("0", "19999", "42")
    assert (ran.stdout.count("\n"), whole) == (20_000, True)
    ran, whole = await unheard("for i in range(30): print('x' * 1_000_000)", "big")
    assert (ran.text, whole) == ("42", False)
    await heirs[-1].shutdown(now=True)


async def run_aside(kernel: Kernel) -> None:
    """Returns when the kernel is busy with what was sent before."""
    await kernel.variables()
