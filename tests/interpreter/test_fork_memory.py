"""What a forked kernel shares with all others, and what it is told of that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asking import Python, shell_of

from interpreter.interpreter import Interpreter
from interpreter.models import CreateContext, CreateSandbox
from interpreter.sandboxes import Sandbox
from interpreter.sessions import Session
from interpreter.settings import Settings

pytestmark = pytest.mark.box


@pytest_asyncio.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Of an interpreter without spare kernels: each is forked when it is asked for."""
    settings = Settings(home=tmp_path_factory.mktemp("forks"), spare_kernels=0)
    async with Interpreter(settings) as interpreter:
        assert interpreter.forks is not None
        assert await interpreter.forks.started()
        sandbox = await interpreter.create_sandbox(CreateSandbox())
        yield sandbox
        assert interpreter.forks.forked
        await interpreter.delete_sandbox(sandbox.id)


OWN_MODULES = """
shell = get_ipython()
later = set(sys.modules) - shell._sys_modules_keys
files = shell.kernel.debugger.kernel_modules
json.dumps([sorted(later), [sys.modules[n].__file__ in files for n in ("ast", "pandas", "zmq")]])
"""
MEMORY = """
words = open("/proc/self/smaps_rollup").read().split()
int(words[words.index("Private_Dirty:") + 1])
"""
MOST_OWN_KIB = 24_000


async def test_it_is_told_of_its_modules(python: Python) -> None:
    """`%reset -f --aggressive` takes none of them away, and no debugger steps into them."""
    result = await python(f"import json, sys\n{OWN_MODULES}")
    assert result.text is not None
    later, known = json.loads(result.text.strip("'"))
    assert (later, known) == ([], [True] * 3)
    await python("import this, wave\n%reset -f --aggressive", timeout=10)
    assert (await python("import sys; 'wave' in sys.modules, 'ast' in sys.modules")).text == (
        "(False, True)"
    )


async def test_most_of_its_memory_is_shared(python: Python) -> None:
    """Looking at each module that is loaded would copy a third of it."""
    await python("import pandas, matplotlib.pyplot as plt\nlen(pandas.DataFrame({'a': [1]}))")
    assert int((await python(MEMORY)).text or 0) < MOST_OWN_KIB


async def test_what_a_startup_file_imports_is_there_from_the_start(
    session: Session, python: Python
) -> None:
    places = "mkdir -p ~/.ipython/profile_default/startup && cd ~/.ipython/profile_default/startup"
    await shell_of(session)(f"({places} && echo import wave > first.py)")
    await session.create_context(CreateContext(language="python", id="other"))
    await python("import this\n%reset -f --aggressive", context="other")
    found = await python(
        "import sys; 'wave' in sys.modules, 'this' in sys.modules", context="other"
    )
    assert found.text == "(True, False)"
    await shell_of(session)("rm -r ~/.ipython")
