"""Which tier is taken where bubblewrap works, is missing, or fails as it is known to."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interpreter import landlock
from interpreter.errors import NotReady
from interpreter.isolation import box_uid, probe
from interpreter.seccomp import ARCHITECTURES
from interpreter.settings import Settings

FAILURES = {
    "bwrap: No permissions to create new namespace, likely because the kernel does not allow "
    "non-privileged user namespaces.": "outside of a container",
    "bwrap: setting up uid map: Permission denied": "AppArmor",
    "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted": "AppArmor",
    "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces "
    "exceeded (ENOSPC)": "raise /proc/sys/user/max_user_namespaces",
    "bwrap: Can't mount proc on /newroot/proc: Operation not permitted": "systempaths=unconfined",
    "bwrap: prctl(PR_SET_SECCOMP): Invalid argument": "CONFIG_SECCOMP_FILTER",
    "bwrap: Unknown option --disable-userns": "0.8 or newer",
    "launcher: unshare: Operation not permitted": "CAP_SYS_ADMIN",
    "something 'new' \N{SNOWMAN}": "something 'new' \N{SNOWMAN}",
}


def settings(isolation: str, home: Path) -> Settings:
    return Settings.model_validate({"isolation": isolation, "home": home})


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All of `PATH`; a place where other users can go, since root starts boxes as one."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        monkeypatch.setenv("PATH", directory)
        yield Path(directory)


def put_bwrap(programs: Path, said: str, code: int = 1) -> None:
    (programs / "said").write_text(said)
    program = programs / "bwrap"
    program.write_text(f"#!/bin/sh\n/bin/cat {programs}/said >&2\nexit {code}\n")
    program.chmod(0o755)


async def test_the_operator_chooses_none(tmp_path: Path) -> None:
    isolation = await probe(settings("none", tmp_path))
    assert (isolation.tier, "by the operator" in isolation.reason) == ("none", True)


async def test_without_bubblewrap(programs: Path, tmp_path: Path) -> None:
    isolation = await probe(settings("auto", tmp_path))
    assert isolation.tier in ("process", "none")
    assert "apt-get install bubblewrap" in isolation.reason
    with pytest.raises(NotReady, match=r"--isolation bwrap: .*apt-get install bubblewrap"):
        await probe(settings("bwrap", tmp_path))


@pytest.mark.parametrize("said", FAILURES)
async def test_a_bubblewrap_that_fails(programs: Path, tmp_path: Path, said: str) -> None:
    put_bwrap(programs, said)
    isolation = await probe(settings("auto", tmp_path))
    assert isolation.tier in ("process", "none")
    assert said in isolation.reason
    assert FAILURES[said] in isolation.reason
    with pytest.raises(NotReady) as refused:
        await probe(settings("bwrap", tmp_path))
    assert FAILURES[said] in refused.value.message


@pytest.mark.parametrize(("abi", "told"), [(0, "no Landlock"), (1, "ABI 1"), (2, "ABI 2")])
async def test_a_landlock_that_is_not_enough(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abi: int, told: str
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: abi)
    isolation = await probe(settings("auto", tmp_path))
    assert isolation.tier == "none"
    assert "apt-get install bubblewrap" in isolation.reason and told in isolation.reason
    for chosen in ({"isolation": "process"}, {"isolation_minimum": "process"}):
        with pytest.raises(NotReady, match=f"--isolation.* process: .*{told}"):
            await probe(Settings.model_validate({"home": tmp_path, **chosen}))


async def test_what_the_operator_asks_at_least(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"--isolation-minimum bwrap: .*bubblewrap"):
        await probe(Settings(home=tmp_path, isolation_minimum="bwrap"))
    for weaker, least in (("none", "process"), ("none", "bwrap"), ("process", "bwrap")):
        chosen = {"home": tmp_path, "isolation": weaker, "isolation_minimum": least}
        with pytest.raises(NotReady, match=f"{weaker} is weaker than --isolation-minimum {least}"):
            await probe(Settings.model_validate(chosen))


async def test_a_way_that_users_of_boxes_cannot_go(tmp_path: Path) -> None:
    uid, gid = 1_200_000, 1_200_000
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "data").mkdir()
    with pytest.raises(NotReady, match=r"cannot pass /\S+ on their way to \S+/data: `chmod o\+x"):
        landlock.check_ways([tmp_path / "closed" / "data"], uid, gid)
    landlock.check_ways(["/usr/bin/env", "/usr/no/such"], uid, gid)


@pytest.mark.parametrize("code", [0, 1])
async def test_a_bubblewrap_that_says_nothing(programs: Path, tmp_path: Path, code: int) -> None:
    put_bwrap(programs, "", code)
    with pytest.raises(NotReady, match="ended at once"):
        await probe(settings("bwrap", tmp_path))


def test_uids_follow_from_who_runs_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Settings(home=tmp_path, uid_base=5000)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert box_uid(chosen, 7) is None
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert box_uid(chosen.model_copy(update={"uid_base": 2**32 - 1}), 7) is None


@pytest.mark.box
@pytest.mark.parametrize("machine", ["x86_64", "riscv64"])
async def test_a_filter_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str
) -> None:
    if machine in ARCHITECTURES and platform.machine() != machine:
        pytest.skip(f"this machine is {platform.machine()}")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    isolation = await probe(settings("bwrap", tmp_path))
    told = "a filter on system calls" in isolation.reason
    assert told == (machine in ARCHITECTURES)
    assert told or "no filter on system calls" in isolation.reason
    assert told or "this is riscv64" in isolation.reason
