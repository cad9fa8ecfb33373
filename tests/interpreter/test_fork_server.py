"""Kernels that are forked: the same as those that are started, and apart from each other."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asking import Python, python_of, shell_of

from interpreter.fork_server import ForkServer
from interpreter.interpreter import Interpreter
from interpreter.models import CreateContext, CreateSandbox, CreateSession
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from interpreter.settings import Settings

pytestmark = pytest.mark.box


@pytest_asyncio.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Interpreter]:
    """An interpreter whose fork server may be killed."""
    settings = Settings(home=tmp_path_factory.mktemp("forks"), spare_kernels=0)
    async with Interpreter(settings) as interpreter:
        yield interpreter


@pytest_asyncio.fixture
async def forks(own: Interpreter) -> ForkServer:
    assert own.forks is not None
    assert await own.forks.started()
    return own.forks


@pytest_asyncio.fixture
async def box(own: Interpreter, forks: ForkServer) -> AsyncIterator[Sandbox]:
    sandbox = await own.create_sandbox(CreateSandbox())
    yield sandbox
    await own.delete_sandbox(sandbox.id)


@pytest_asyncio.fixture
async def session(box: Sandbox) -> Session:
    return box.session("default")


@pytest.fixture
def python(session: Session) -> Python:
    return python_of(session)


LIKENESS = """
import faulthandler, gc, json, locale, logging, os, resource, signal, site, sys, sysconfig
import multiprocessing.spawn, tempfile, time
import matplotlib, matplotlib.pyplot, numpy, pandas

def lines(path, *names):
    return [line for line in open(path) if line.startswith(names or "")]

descriptors = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
extra = {os.readlink(f"/proc/self/fd/{fd}").partition(":")[0].rpartition("-")[0]
         for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
print(json.dumps({
    "path": sys.path, "flags": str(sys.flags), "argv": sys.argv,
    "executable": [sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix],
    "site": [site.getsitepackages(), site.ENABLE_USER_SITE, site.getusersitepackages()],
    "paths": [sysconfig.get_paths(), sysconfig.get_config_var("prefix")],
    "environ": dict(os.environ), "cwd": os.getcwd(), "parent": os.getppid(),
    "status": lines("/proc/self/status", "Umask", "Uid", "Gid", "Groups", "Sig", "Cap", "NoNew",
                    "Seccomp:", "Seccomp_filters"),
    "limits": lines("/proc/self/limits"), "groups": lines("/proc/self/cgroup"),
    "signals": [str(signal.getsignal(number)).partition(" object")[0] for number in range(1, 32)],
    "locale": [locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding(), str(sys.__stdout__)],
    "collector": [gc.isenabled(), gc.get_threshold(), faulthandler.is_enabled()],
    "temp": tempfile.gettempdir(), "zone": time.tzname, "logging": str(logging.root.handlers),
    "priority": [os.getpriority(0, 0), *lines("/proc/self/oom_score_adj")],
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "command": lines("/proc/self/comm") + lines("/proc/self/cmdline")[0].split("\\0")[:4],
    "descriptors": sorted(extra), "stdin": descriptors[0],
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "spawns": str(multiprocessing.spawn.get_executable()),
    "matplotlib": [matplotlib.get_configdir(), matplotlib.get_backend(),
                   matplotlib.is_interactive()],
    "shell": [get_ipython().ipython_dir, get_ipython().starting_dir,
              get_ipython().profile_dir.location],
    "tables": [str(pandas.describe_option(_print_desc=False)).lower(), numpy.get_printoptions()],
    "names": sorted(name for name in globals() if not name.startswith("__")),
}))
"""


async def test_it_is_what_a_started_one_is(
    own: Interpreter, forks: ForkServer, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = await (await box.create_session(CreateSession())).create_context(_python())
    other = await box.create_session(CreateSession())
    before = forks.forked
    with monkeypatch.context() as patch:
        patch.setattr(ForkServer, "fork", _none)
        started = await python_of(other)(LIKENESS)
        started = await python_of(other)(LIKENESS)
    session = box.session(forked.session)
    told = await python_of(session)(LIKENESS)
    told = await python_of(session)(LIKENESS)
    assert forks.forked == before
    this, that = json.loads(told.stdout), json.loads(started.stdout)
    assert this == that


def _python() -> CreateContext:
    return CreateContext(language="python", id="python")


async def _none(*_: object, **__: object) -> None:
    return None


async def test_init_has_adopted_it_and_the_box_sees_nobody_else(
    box: Sandbox, session: Session, python: Python, forks: ForkServer
) -> None:
    before = forks.forked
    result = await python("import os; os.getppid()")
    assert forks.forked == before + 1
    assert result.text == "1"
    seen = await shell_of(session)("ps -eo args --no-headers | grep -v 'ps -eo'")
    assert "fork_server" not in seen.stdout
    assert "python_kernel.py" in seen.stdout


async def test_it_shares_all_namespaces_and_groups_with_its_session(
    session: Session, python: Python
) -> None:
    script = "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/cgroup"
    there = (await shell_of(session)(script)).stdout
    here = (await python(f"import subprocess; print(subprocess.getoutput('{script}'))")).stdout
    assert here == there
    assert await python("import os; [os.readlink(f'/proc/self/ns/{n}') for n in ('net', 'user')]")


RANDOM = """
import random, numpy, uuid, secrets, tempfile, multiprocessing
print([random.random(), numpy.random.random(), str(uuid.uuid4()), uuid.uuid1().node,
       secrets.token_hex(), numpy.random.default_rng().random(),
       next(tempfile._get_candidate_names()),
       bytes(multiprocessing.current_process().authkey).hex()])
"""


async def test_no_two_have_the_same_randomness(session: Session, python: Python) -> None:
    await session.create_context(CreateContext(language="python", id="other"))
    one, two = await python(RANDOM), await python(RANDOM, context="other")
    pairs = list(zip(_values(one.stdout), _values(two.stdout), strict=True))
    assert len(pairs) == 8
    assert not [pair for pair in pairs if pair[0] == pair[1]]


def _values(printed: str) -> list[Any]:
    values: list[Any] = json.loads(printed.replace("'", '"'))
    return values


WORKS = {
    "plot": (
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()\nprint(plt.get_backend())",
        "inline",
    ),
    "descriptor": ("import os; os.write(1, b'raw\\n'); os.system('echo sub')", "raw\nsub"),
    "pip": ("%pip --version", "pip "),
    "shell": ("!echo $((40 + 2))", "42"),
    "magic": ("%%bash\necho from bash", "from bash"),
    "pool": (
        "import multiprocessing\ndef square(n): return n * n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(square, [2, 3]))",
        "[4, 9]",
    ),
    "spawn": (
        "import concurrent.futures, multiprocessing, math\n"
        "with concurrent.futures.ProcessPoolExecutor(\n"
        "    1, mp_context=multiprocessing.get_context('spawn')) as pool:\n"
        "    print(pool.submit(math.factorial, 5).result())",
        "120",
    ),
    "threads": (
        "import threading\nthread = threading.Thread(target=print, args=('threaded',))\n"
        "thread.start(); thread.join()",
        "threaded",
    ),
    "await": ("import asyncio; print(await asyncio.sleep(0.01, 'waited'))", "waited"),
    "frame": ("import pandas; print(pandas.DataFrame({'a': [1]}))", "a"),
    "blas": (
        "import numpy, os\nm = numpy.ones((900, 900)); m @ m\n"
        "print(len(os.listdir('/proc/self/task')) - before)",
        str((os.cpu_count() or 1) - 1),
    ),
    "subprocess": (
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', "
        "'import sys; print(sys.prefix)'], capture_output=True, text=True).stdout)",
        "/home/user/.venv",
    ),
    "lazy": ("import importlib\nprint(importlib.import_module('numpy.polynomial').__file__)", "/"),
    "absent": ("try: import scipy\nexcept ModuleNotFoundError as e: print(e)", "No module named"),
}


@pytest.mark.parametrize("code, printed", WORKS.values(), ids=WORKS)
async def test_what_kernels_do_works(
    python: Python, forks: ForkServer, code: str, printed: str
) -> None:
    before = forks.forked
    await python("import os; before = len(os.listdir('/proc/self/task'))")
    result = await python(code, timeout=50)
    assert forks.forked == before + 1
    assert result.status == "ok", result.error
    assert printed in result.stdout
    if "plot" in code:
        assert any("image/png" in output.get("data", {}) for output in result.outputs)


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
async def test_it_is_interrupted(python: Python, code: str) -> None:
    await python("kept = 1")
    assert (await python(code, timeout=0.3)).status == "timeout"
    assert (await python("kept")).text == "1"


async def test_it_ends_as_any_other(python: Python, forks: ForkServer) -> None:
    await python("1")
    before = forks.forked
    assert (await python("import os; os.kill(os.getpid(), 9)")).status == "died"
    result = await python("1 + 1")
    assert result.text == "2"
    assert [notice.code for notice in result.notices] == ["context_restarted"]
    assert forks.forked == before + 1
    assert "exit code 3" in str((await python("import os; os._exit(3)")).error)


async def test_nothing_of_one_sandbox_is_in_the_memory_of_another(
    own: Interpreter, python: Python, session: Session
) -> None:
    secret = secrets.token_hex(16)
    await session.set_env({"SECRET": secret})
    assert (await python("import os; len(os.environ['SECRET'])")).text == "32"
    other = await own.create_sandbox(CreateSandbox())
    code = (
        f"needle = bytes.fromhex({secret[::-1].encode().hex()!r})[::-1]; found = 0\n"
        "for line in open('/proc/self/maps'):\n"
        "    area, rights, *_, = line.split()\n"
        "    if 'rw' in rights and 'stack' not in line:\n"
        "        low, high = (int(end, 16) for end in area.split('-'))\n"
        "        with open('/proc/self/mem', 'rb', 0) as memory:\n"
        "            memory.seek(low); found += memory.read(high - low).count(needle)\n"
        "found"
    )
    try:
        result = await python_of(other.session("default"))(code)
    finally:
        await own.delete_sandbox(other.id)
    assert result.status == "ok", result.error
    # The needle itself, and copies that the search has made of it, at most.
    mine = int((await python(code)).text or 0)
    assert int(result.text or 0) < mine


SHADOWS = {
    "a module in the working directory": ("echo 'x = 1' > pytz.py; echo 'x = 1' > PIL.py", "PIL"),
    "a package of its own": (
        "cd ~/.venv/lib/python3*/site-packages; mkdir pandas; echo > pandas/__init__.py; cd",
        "pandas",
    ),
    "an archive on PYTHONPATH": (
        "mkdir -p z/pandas; echo > z/pandas/__init__.py; cd z; "
        "python3 -m zipfile -c ../lib.zip pandas; cd ..; "
        "export PYTHONPATH=$PWD/lib.zip",
        "pandas",
    ),
    "a package on PYTHONPATH": (
        "mkdir -p lib/numpy; echo > lib/numpy/__init__.py; export PYTHONPATH=$PWD/lib",
        "numpy",
    ),
}


@pytest.mark.parametrize("command, name", SHADOWS.values(), ids=SHADOWS)
async def test_a_package_of_the_sandboxs_own_is_the_one(
    session: Session, python: Python, forks: ForkServer, command: str, name: str
) -> None:
    before = forks.cold["module"]
    await shell_of(session)(command)
    result = await python(f"import {name}; {name}.__file__")
    assert "/opt/cellshell/python" not in (result.text or ""), result
    assert forks.cold["module"] == before + 1


@pytest.mark.parametrize(
    "name, value, code, text",
    [
        ("PYTHONHASHSEED", "0", "import sys; sys.flags.hash_randomization", "0"),
        ("PYTHONOPTIMIZE", "1", "import sys; sys.flags.optimize", "1"),
        ("OMP_NUM_THREADS", "1", "1", "1"),
        ("LANG", "C", "1", "1"),
        ("HOME", "/tmp", "import os; os.path.expanduser('~')", "'/tmp'"),
        ("MPLBACKEND", "svg", "import matplotlib; matplotlib.get_backend()", "'svg'"),
    ],
)
async def test_what_is_read_at_the_start_is_read(
    session: Session, python: Python, forks: ForkServer, name: str, value: str, code: str, text: str
) -> None:
    before = forks.cold["variable"]
    await session.set_env({name: value})
    assert (await python(code)).text == text
    assert forks.cold["variable"] == before + 1


async def test_the_time_zone_of_the_session_counts(session: Session, python: Python) -> None:
    await session.set_env({"TZ": "Asia/Tokyo"})
    assert (await python("import time; time.tzname[0]")).text == "'JST'"


async def test_kernels_outlive_it_and_it_comes_back(
    session: Session, python: Python, forks: ForkServer
) -> None:
    await python("x = 41")
    before = forks.forked
    assert forks.pid is not None
    os.killpg(forks.pid, signal.SIGKILL)
    assert await _until(lambda: forks.state == "starting")
    await session.create_context(CreateContext(language="python", id="meanwhile"))
    assert (await python("6 * 7", context="meanwhile")).text == "42"
    assert (await python("x + 1")).text == "42"
    assert await forks.started()
    await session.create_context(CreateContext(language="python", id="after"))
    assert (await python("6 * 7", context="after")).text == "42"
    assert forks.forked == before + 1


async def test_it_is_made_anew_when_packages_have_changed(
    own: Interpreter, session: Session, python: Python, forks: ForkServer
) -> None:
    pid, before = forks.pid, forks.cold["packages"]
    [packages] = own.settings.python_home.glob("lib/python3.*/site-packages")
    os.utime(packages)
    assert (await python("1")).text == "1"
    assert forks.cold["packages"] == before + 1
    assert await forks.started()
    assert forks.pid != pid


async def test_who_asks_and_goes_leaves_nothing(
    box: Sandbox, session: Session, forks: ForkServer
) -> None:
    running = await _processes(session)
    for delay in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
        asking = asyncio.create_task(session.create_context(CreateContext(language="python")))
        await asyncio.wait({asking}, timeout=delay)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    for context in session.contexts():
        await session.delete_context(context.id)
    for _ in range(100):  # the last of them may be on its way out
        if await _processes(session) == running:
            return
    raise AssertionError("kernels are left that nobody asked for any more")


async def _until(found: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if found():
            return True
        await asyncio.sleep(0.005)
    return False


async def _processes(session: Session) -> int:
    result = await shell_of(session)("ps -e --no-headers | grep -c python")
    return int(result.stdout)


async def test_many_at_once(session: Session, python: Python, forks: ForkServer) -> None:
    before = forks.forked
    made = await asyncio.gather(
        *(session.create_context(CreateContext(language="python")) for _ in range(12))
    )
    results = await asyncio.gather(*(python("1 + 1", context=each.id) for each in made))
    assert [result.text for result in results] == ["2"] * 12
    assert forks.forked == before + 12


async def test_without_it_kernels_are_started(tmp_path: Path) -> None:
    async with Interpreter(Settings(home=tmp_path, fork_server=False)) as interpreter:
        assert interpreter.health().fork_server == "off"
        sandbox = await interpreter.create_sandbox(CreateSandbox())
        assert (await python_of(sandbox.session("default"))("1 + 1")).text == "2"
        await interpreter.delete_sandbox(sandbox.id)


async def test_names_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, fork_server_imports=["no_such_library", "json.tool"])
    async with Interpreter(settings) as interpreter:
        assert interpreter.forks is not None
        assert await interpreter.forks.started()
        assert interpreter.health().fork_server == "ready"
