"""The Python kernel's part in the environment of its session."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from interpreter import environment
from kernels.guest import python_environment
from kernels.kernel import Kernel
from kernels.report import Report
from tests.kernels.conftest import StartKernel
from tests.kernels.runs import run


class Page:
    """Written as the service writes it."""

    def __init__(self, path: Path, cwd: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = {"version": 0, "cwd": str(cwd), "env": {}}
        self.path.touch()
        self.write()

    def write(self, *, cwd: str | None = None, **changes: str | None) -> None:
        env = {**self.document["env"], **changes}
        self.document = {
            "version": self.document["version"] + 1,
            "cwd": cwd or self.document["cwd"],
            "env": {name: value for name, value in env.items() if value is not None},
        }
        body = json.dumps(self.document, ensure_ascii=False).encode("utf-8", "surrogateescape")
        sequence = self.document["version"] * 2
        with self.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("<QQ", sequence - 1, len(body)), 0)
            os.pwrite(file.fileno(), body, 16)
            os.pwrite(file.fileno(), struct.pack("<QQ", sequence, len(body)), 0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Page:
    return Page(tmp_path_factory.mktemp("page") / "page", home)


@pytest.fixture
async def sharing(start_kernel: StartKernel, page: Page, home: Path) -> Kernel:
    page.write(cwd=str(home))
    return await start_kernel(arguments=["--page", str(page.path)])


async def see(kernel: Kernel, expression: str, **options: Any) -> Any:
    ran = await run(kernel, f"import os; print(ascii({expression}))", **options)
    return eval(ran.stdout)


def call(**told: Any) -> dict[str, Any]:
    return {"metadata": {"cellshell": told}}


async def test_what_changes_on_the_page_is_there_in_the_next_cell(
    sharing: Kernel, page: Page, tmp_path: Path
) -> None:
    value = 'it\'s "$HOME"\n\\ ä😀 \udcff `x`'
    page.write(A=value, EMPTY="", cwd=str(tmp_path))
    assert await see(sharing, "(os.environ['A'], os.environ['EMPTY'], os.getcwd())") == (
        value, "", str(tmp_path)
    )  # fmt: skip
    page.write(A=None)
    assert await see(sharing, "('A' in os.environ, 'EMPTY' in os.environ)") == (False, True)


async def test_what_a_cell_changes_is_told(sharing: Kernel, page: Page, tmp_path: Path) -> None:
    page.write(GONE="x", KEPT="y")
    ran = await run(
        sharing,
        "import os; os.environ['A'] = 'ä\\udcff'; del os.environ['GONE'];"
        f"os.chdir({str(tmp_path)!r})",
    )
    told = ran.outcome.report
    assert told is not None
    assert (told.set, told.unset, told.cwd) == ({"A": "ä\udcff"}, ("GONE",), str(tmp_path))
    assert told.version == page.document["version"]
    assert (await run(sharing, "1")).outcome.report is None


async def test_a_failed_cell_tells_too(sharing: Kernel) -> None:
    ran = await run(sharing, "import os; os.environ['B'] = '1'; 1 / 0")
    assert ran.outcome.report is not None
    assert ran.outcome.report.set == {"B": "1"}
    ran = await run(sharing, "os.environ['B'] = '2'", silent=True)
    assert ran.outcome.report is not None
    assert ran.outcome.report.set == {"B": "2"}


async def test_what_the_shell_changes_back_is_changed_back(sharing: Kernel, page: Page) -> None:
    page.write(X="1")
    await run(sharing, "import os; os.environ['X'] = '2'")
    page.write(X="2")
    page.write(X="1")
    assert await see(sharing, "os.environ['X']") == "1"


async def test_what_belongs_to_the_kernel_alone_is_not_told(sharing: Kernel, page: Page) -> None:
    names = ("TERM", "MPLBACKEND", "JPY_X", "_", "PWD", "BASH_ENV", "CELLSHELL_X", "COLUMNS")
    ran = await run(sharing, f"import os\nfor name in {names}: os.environ[name] = 'x'")
    assert ran.outcome.report is None
    assert await see(sharing, "(os.environ['TERM'], os.environ['PAGER'])") == ("x", "cat")


async def test_what_a_client_gives_holds_in_the_kernel_too(sharing: Kernel, page: Page) -> None:
    page.write(TERM="other", PAGER="less")
    assert await see(sharing, "(os.environ['TERM'], os.environ['PAGER'])") == ("other", "less")
    await run(sharing, "os.environ['PAGER'] = 'mine'")
    page.write(TERM="other", PAGER="less", A="1")
    assert await see(sharing, "(os.environ['PAGER'], os.environ['A'])") == ("mine", "1")


async def test_what_cannot_be_shared_is_named(sharing: Kernel) -> None:
    code = "import os; os.environ['BIG'] = 'x' * 200_000; os.environ['a.b'] = '1'"
    told = (await run(sharing, code)).outcome.report
    assert told is not None
    assert (told.set, set(told.skipped)) == ({}, {"BIG", "a.b"})
    assert (await run(sharing, "1")).outcome.report is None


async def test_what_a_thread_changes_is_told_with_the_next_cell(sharing: Kernel) -> None:
    await run(
        sharing,
        "import os, threading; done = threading.Event()\n"
        "def work(): done.wait(); os.environ['T'] = '1'\n"
        "thread = threading.Thread(target=work); thread.start()",
    )
    reports = [
        (await run(sharing, code)).outcome.report for code in ("done.set()", "thread.join()", "1")
    ]
    assert [report.set for report in reports if report] == [{"T": "1"}]


@pytest.mark.parametrize("ending", ["pass", "1 / 0", "raise KeyboardInterrupt", "def", "exec('(')"])
async def test_what_is_given_with_a_call_holds_for_that_call(
    sharing: Kernel, page: Page, tmp_path: Path, home: Path, ending: str
) -> None:
    page.write(A="shared", UNSET="here", NEW=None)
    given = call(env={"A": "own", "UNSET": None, "NEW": "x"}, cwd=str(tmp_path))
    seen = "[os.environ.get(n) for n in ('A', 'UNSET', 'NEW')] + [os.getcwd()]"
    assert await see(sharing, seen, **given) == ["own", None, "x", str(tmp_path)]
    ran = await run(sharing, f"os.environ['A'] = 'changed'; os.chdir('/')\n{ending}", **given)
    assert ran.outcome.report is None
    assert await see(sharing, seen) == ["shared", "here", None, str(home)]


async def test_odd_metadata_is_ignored(sharing: Kernel, home: Path) -> None:
    for told in ("x", [], {"env": [], "cwd": 5}, {"env": {"A=B": "x", "N": 5, "Z": "\0"}}, None):
        assert await see(sharing, "os.getcwd()", metadata={"cellshell": told}) == str(home)
    odd = call(env={"\ud800": "x", "OK": "\ud800"}, cwd="/no\0where")
    assert (await run(sharing, "1", **odd)).outcome.status == "ok"


async def test_a_directory_that_is_gone_is_replaced_by_its_parent(
    sharing: Kernel, page: Page, tmp_path: Path
) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    page.write(cwd=str(deep))
    assert await see(sharing, "os.getcwd()") == str(deep)
    deep.rmdir()
    ran = await run(sharing, "os.getcwd()")
    assert ran.text == repr(str(deep.parent))
    assert ran.outcome.report is not None
    assert (ran.outcome.report.missing_cwd, ran.outcome.report.cwd) == (str(deep), None)
    assert (await run(sharing, "1")).outcome.report is None


async def test_a_page_that_is_replaced_is_followed(sharing: Kernel, page: Page) -> None:
    page.write(A="old")
    assert await see(sharing, "os.environ['A']") == "old"
    page.path.unlink()
    assert await see(sharing, "os.environ['A']") == "old"
    page.path.touch()
    page.write(A="new")
    assert await see(sharing, "os.environ['A']") == "new"


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"short",
        struct.pack("<QQ", 2**63, 5) + b"[1,2]",
        struct.pack("<QQ", 10**6, 2**62),
        struct.pack("<QQ", 10**6 + 1, 5) + b"",
        struct.pack("<QQ", 10**6 + 2, 9) + b"not json!",
        struct.pack("<QQ", 10**6 + 4, 2) + b"{}",
        struct.pack("<QQ", 10**6 + 6, 26) + b'{"env":5,"version":"x"}   ',
    ],
)
async def test_a_page_that_is_none_changes_nothing(
    sharing: Kernel, page: Page, torn: bytes
) -> None:
    page.write(A="value")
    assert await see(sharing, "os.environ['A']") == "value"
    page.path.write_bytes(torn)
    assert await see(sharing, "os.environ['A']") == "value"


async def test_what_is_private_to_a_context_stays_there(
    start_kernel: StartKernel, page: Page, tmp_path: Path
) -> None:
    page.write(MINE="shared", OTHER="1")
    private = json.dumps({"env": {"MINE": "own"}, "cwd": str(tmp_path)})
    kernel = await start_kernel(arguments=["--page", str(page.path), "--private", private])
    seen = "(os.environ['MINE'], os.environ['OTHER'], os.getcwd())"
    assert await see(kernel, seen) == ("own", "1", str(tmp_path))
    page.write(MINE="changed", OTHER="2", cwd="/")
    assert await see(kernel, seen) == ("own", "2", str(tmp_path))
    ran = await run(kernel, "os.environ['MINE'] = 'mine'; os.chdir('/'); os.environ['OTHER'] = '3'")
    assert ran.outcome.report is not None
    assert (ran.outcome.report.set, ran.outcome.report.cwd) == ({"OTHER": "3"}, None)
    assert await see(kernel, seen) == ("mine", "3", "/")


async def test_a_virtual_environment_is_followed(
    sharing: Kernel, page: Page, tmp_path: Path
) -> None:
    version = (await run(sharing, "import sys; '%d.%d' % sys.version_info[:2]")).text
    packages = tmp_path / "venv" / "lib" / f"python{eval(str(version))}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_there.py").write_text("value = 1")
    (packages / "more.pth").write_text(str(tmp_path / "more"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "linked.py").write_text("value = 2")
    page.write(VIRTUAL_ENV=str(tmp_path / "venv"))
    assert await see(sharing, "[__import__(n).value for n in ('only_there', 'linked')]") == [1, 2]
    page.write(VIRTUAL_ENV=None)
    assert (
        await see(sharing, f"[p for p in __import__('sys').path if {str(tmp_path)!r} in p]") == []
    )


async def test_the_python_path_is_followed(sharing: Kernel, page: Page, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("value = 3")
    page.write(PYTHONPATH=f"{tmp_path}:/no/such")
    assert await see(sharing, "__import__('mine').value") == 3
    assert await see(sharing, "__import__('sys').path[:3]") == ["", str(tmp_path), "/no/such"]
    page.write(PYTHONPATH=None)
    assert str(tmp_path) not in await see(sharing, "__import__('sys').path")


async def test_a_report_is_seen_whoever_sent_the_cell(
    start_kernel: StartKernel, page: Page, zmq_context: zmq.Context[Any]
) -> None:
    """A client that speaks to the kernel itself gets the reply; idle goes to everybody."""
    reports: asyncio.Queue[Report] = asyncio.Queue()
    kernel = await start_kernel(arguments=["--page", str(page.path)], on_report=reports.put_nowait)
    with zmq_context.socket(zmq.DEALER) as socket:
        socket.connect(kernel.endpoint("shell"))
        session = Session(key=kernel.record.key.encode())
        content = {"code": "import os; os.environ['THEIRS'] = '1'", "silent": False}
        session.send(socket, "execute_request", content)
        report = await reports.get()
    assert report.set == {"THEIRS": "1"}
    assert kernel.execution_count == 1


async def test_files_of_the_user_get_in_no_ones_way(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    """Neither those of the working directory nor those on PYTHONPATH."""
    for name in ("random", "numpy", "zmq", "api", "kernels", "IPython", "json", "asyncio", "types"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "interpreter.py").write_text("value = 'mine'")
    kernel = await start_kernel(cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    ran = await run(kernel, "import interpreter; print(interpreter.value)\n1 / 0")
    assert (ran.stdout, ran.ename) == ("mine\n", "ZeroDivisionError")
    assert (await run(kernel, "import api")).ename == "RuntimeError"
    for hidden in ("python_kernel", "_python_kernel", "python_streams", "_python_streams"):
        assert (await run(kernel, f"import {hidden}")).ename == "ModuleNotFoundError"
    assert (await run(kernel, "import sys; __name__, sys.path[0], sys.argv")).text == (
        "('__main__', '', [''])"
    )


async def test_it_costs_next_to_nothing_when_nothing_changed(sharing: Kernel) -> None:
    code = (
        "import time\nenvironment = get_ipython().kernel.environment\n"
        "def once():\n    start = time.perf_counter_ns()\n"
        "    environment.before(None); environment.after()\n"
        "    return time.perf_counter_ns() - start\n"
        "print(min(once() for _ in range(2000)))"
    )
    assert int((await run(sharing, code)).stdout) < 100_000


def test_the_private_names_are_those_of_the_service() -> None:
    assert environment.PRIVATE == python_environment.PRIVATE
