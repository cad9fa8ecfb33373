"""The kernel environment is built for real; pip acts in a real box, on wheels made here."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from interpreter import python_build
from interpreter.box import Box
from interpreter.errors import NotReady
from interpreter.python_environment import PythonEnvironment, ensure, mounts
from interpreter.settings import Settings
from interpreter.thin_environment import write_thin_environment
from interpreter.walls import BoxPlan, Mount
from kernels.specs import find_deno

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

UID = 1_234_567
WHEELS = ["ipykernel>=7"]
PIP = "pip install --quiet --disable-pip-version-check --no-index --find-links /workspace/wheels"


def make_wheel(directory: Path, name: str, version: str) -> None:
    directory.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"def main(): print('hello from {name}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\nsay-{name} = {name}:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds a small ipykernel, and nothing else."""
    make_wheel(tmp_path / "wheels", "ipykernel", "7.99")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path


def settings_for(path: Path) -> Settings:
    return Settings(home=path.parent, kernel_environment=path)


async def test_built_once_by_two_starts_at_once(offline: Path) -> None:
    path = offline / "a dir" / "kernel"
    half = path.with_name("kernel.building")
    (half / "left").mkdir(parents=True)
    lines: list[str] = []
    settings = settings_for(path)
    found = await asyncio.gather(
        *(ensure(settings, lines.append, requirements=WHEELS) for _ in range(2))
    )
    assert found == [path, path]
    assert len([line for line in lines if "is ready after" in line]) == 1
    assert not half.exists()
    script = subprocess.run([path / "bin" / "say-ipykernel"], capture_output=True, check=True)
    assert script.stdout == b"hello from ipykernel\n"
    first = path.stat().st_ino
    await ensure(settings, lines.append, requirements=WHEELS)
    assert path.stat().st_ino == first
    await ensure(settings, lines.append, requirements=["ipykernel>=7.1"])
    assert path.stat().st_ino != first
    assert path.with_name("kernel.previous").stat().st_ino == first


async def test_a_failed_build_says_why_and_leaves_nothing(offline: Path) -> None:
    path = offline / "kernel"
    with pytest.raises(NotReady, match=r"(?s)nothing-like-this.*CELLSHELL_KERNEL_ENVIRONMENT"):
        await ensure(settings_for(path), print, requirements=["nothing-like-this"])
    assert sorted(each.name for each in offline.iterdir()) == ["kernel.lock", "wheels"]


async def test_a_cancelled_build_ends_what_it_started(offline: Path) -> None:
    path = offline / "kernel"
    started = asyncio.Event()
    task = asyncio.create_task(
        ensure(settings_for(path), lambda _: started.set(), requirements=WHEELS)
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with python_build._lock(path.with_name("kernel.lock")):  # free: nobody builds any more
        assert not path.exists()
    await ensure(settings_for(path), print, requirements=WHEELS)
    assert PythonEnvironment.read(path).version


async def test_what_others_made_is_never_replaced(offline: Path) -> None:
    path = offline / "theirs"
    path.mkdir()
    (path / "precious").write_text("1")
    with pytest.raises(NotReady, match="expected a Python environment with ipykernel"):
        await ensure(settings_for(path), print, requirements=WHEELS)
    assert (path / "precious").read_text() == "1"
    with pytest.raises(python_build.BuildFailed, match="left alone"):
        python_build.build(path, WHEELS)
    file = offline / "file"
    file.touch()
    with pytest.raises(NotReady):
        await ensure(settings_for(file), print, requirements=WHEELS)


@pytest.fixture(scope="module")
def environment() -> PythonEnvironment:
    settings = Settings()
    try:
        return PythonEnvironment.read(settings.python_home.absolute())
    except NotReady as error:
        pytest.skip(f"no kernel environment, which `make test` would have made: {error}")


async def test_an_environment_as_it_is_is_used(environment: PythonEnvironment) -> None:
    if python_build.is_foreign(environment.path):
        assert await ensure(settings_for(environment.path), print) == environment.path


def test_mounts_name_neutral_paths(environment: PythonEnvironment) -> None:
    found = mounts(settings_for(environment.path))
    inside = [target for _, target in found]
    assert "/opt/cellshell/python" in inside
    assert len(set(inside)) == len(inside)
    base = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    assert ((base, base) in found) == (not base.startswith("/usr"))


def test_thin_environment_follows_and_replaces_nothing(
    environment: PythonEnvironment, tmp_path: Path
) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    for name in (".venv.new", ".venv"):
        (home / name).symlink_to(outside)
        assert write_thin_environment(home, environment) is (name == ".venv.new")
        assert list(outside.iterdir()) == []
        shutil.rmtree(home / ".venv", ignore_errors=True)
    (home / ".venv").unlink()
    link = tmp_path / "link"
    link.symlink_to(home)
    with pytest.raises(NotADirectoryError):
        write_thin_environment(link, environment)
    (home / ".venv.new" / "bin").mkdir(parents=True)
    assert write_thin_environment(home, environment)
    assert not (home / ".venv.new").exists()
    assert not write_thin_environment(home, environment)


def test_thin_environment_without_a_box(environment: PythonEnvironment, tmp_path: Path) -> None:
    """Long paths and spaces: no shebang can name them."""
    home = tmp_path / ("long " * 20)
    home.mkdir()
    write_thin_environment(
        home, environment, inside_home=str(home), inside_environment=str(environment.path)
    )
    pip = home / ".venv" / "bin" / "pip"
    shown = subprocess.run([pip, "--version"], capture_output=True, text=True, check=True, env={})
    assert str(environment.path) in shown.stdout
    code = "import sys, numpy; print(sys.prefix); print(numpy.__file__)"
    python = home / ".venv" / "bin" / "python3"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    prefix, numpy = shown.stdout.splitlines()
    assert prefix == str(home / ".venv")
    assert numpy.startswith(str(environment.path))


@pytest_asyncio.fixture(scope="module")
async def box(
    environment: PythonEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Box]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    files = tmp_path_factory.mktemp("files")
    run = tmp_path_factory.mktemp("run")
    uid = UID if os.getuid() == 0 else None
    (files / "home").mkdir()
    (files / "etc").mkdir()
    write_thin_environment(files / "home", environment, uid=uid)
    for name, version in (("hello", "1.0"), ("numpy", "999.0")):
        make_wheel(files / "wheels", name, version)
    (files / "workspace").mkdir()
    (files / "wheels").rename(files / "workspace" / "wheels")
    bound = [Mount(*mount) for mount in mounts(settings_for(environment.path))]
    box = await Box.start(BoxPlan(files=files, run=run, uid=uid, mounts=bound))
    try:
        yield box
    finally:
        await box.destroy()


async def bash(box: Box, command: str) -> tuple[int, str]:
    env = {"HOME": "/home/user", "PATH": "/home/user/.venv/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    argv = ["/bin/bash", "-c", f"exec 2>&1\n{command}"]
    process = await box.spawn(argv, env=env, cwd="/tmp", stdout="pipe")
    assert process.stdout is not None
    reader = asyncio.StreamReader()
    pipe = os.fdopen(process.stdout, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        output = await reader.read()
        return await process.wait(), output.decode()
    finally:
        transport.close()
        await process.release()


@pytest.mark.box
async def test_pip_in_a_box(box: Box) -> None:
    code, output = await bash(
        box, f"{PIP} hello && say-hello && head -1 ~/.venv/bin/say-hello && stat -c %u ~/.venv"
    )
    assert code == 0, output
    assert output.splitlines() == ["hello from hello", "#!/home/user/.venv/bin/python", "1000"]
    code, output = await bash(box, "pip uninstall -y --quiet hello; say-hello")
    assert code == 127, output


@pytest.mark.box
async def test_upgrading_and_getting_back_a_shared_package(box: Box) -> None:
    where = "python -c 'import numpy; print(numpy.__file__)'"
    code, output = await bash(box, f"{PIP} --upgrade numpy && {where}")
    assert code == 0, output
    assert output.splitlines()[-1].startswith("/home/user/.venv/lib/")
    code, output = await bash(box, f"pip uninstall -y --quiet numpy && {where}")
    assert code == 0, output
    assert output.splitlines()[-1].startswith("/opt/cellshell/python/lib/")
    code, output = await bash(box, f"pip uninstall -y numpy; {where}")
    assert "outside environment /home/user/.venv" in output
    assert output.splitlines()[-1].startswith("/opt/cellshell/python/lib/")


@pytest.mark.box
async def test_a_users_own_virtual_environment(box: Box) -> None:
    prefix = "python -c 'import sys; print(sys.prefix)'"
    _, output = await bash(
        box,
        f"python -m venv --without-pip /tmp/own && . /tmp/own/bin/activate && {prefix}"
        f" && deactivate && {prefix} && . ~/.venv/bin/activate && {prefix} && deactivate"
        " && echo $PATH && declare -F",
    )
    assert output.splitlines() == [
        "/tmp/own",
        "/home/user/.venv",
        "/home/user/.venv",
        "/home/user/.venv/bin:/usr/bin:/bin",
    ]


@pytest.mark.box
async def test_ipython_magic_and_scripts_of_shared_packages(box: Box) -> None:
    magic = PIP.removeprefix("pip ") + " hello"
    code, output = await bash(
        box,
        f"ipython --no-banner --colors=nocolor -c '%pip {magic}' >/dev/null"
        " && say-hello && pip --version && pip uninstall -y --quiet hello",
    )
    assert code == 0, output
    said, version = output.splitlines()
    assert said == "hello from hello"
    assert "/opt/cellshell/python/lib/" in version


@pytest.mark.box
async def test_deno_in_a_box(box: Box) -> None:
    if find_deno() is None:
        pytest.skip("Deno is not installed: pip install 'cellshell[deno]'")
    code, output = await bash(box, "/opt/cellshell/bin/deno eval 'console.log(Deno.cwd())'")
    assert (code, output) == (0, "/tmp\n")


@pytest.mark.box
async def test_the_host_does_not_show(box: Box, environment: PythonEnvironment) -> None:
    code = "import pandas, sys; print([p for p in sys.path if p], pandas.__file__)"
    _, output = await bash(box, f'cd /; python -c "{code}"; touch /opt/cellshell/python/x')
    assert str(environment.path) not in output
    assert "Read-only file system" in output
