"""Control groups: what is written where, in both versions; and the real ones where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from interpreter.cgroup import Counters, Group, Place
from interpreter.cgroups import Cgroups, Hierarchy, hierarchies
from interpreter.limit_models import Limits

LIMITS = Limits(memory_bytes=256 << 20, cpus=0.5, pids=50)
WRITTEN = {
    1: {
        "memory.limit_in_bytes": str(256 << 20),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "pids.max": "52",
    },
    2: {"memory.max": str(256 << 20), "cpu.max": "50000 100000", "pids.max": "52"},
}
TOLD = {
    1: {
        "memory.usage_in_bytes": "5000\n",
        "memory.max_usage_in_bytes": "9000\n",
        "memory.stat": "cache 7\ntotal_inactive_file 1000\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "cpuacct.usage": "1500000000\n",
        "pids.current": "6\n",
        "pids.events": "max 4\n",
    },
    2: {
        "memory.current": "5000\n",
        "memory.peak": "9000\n",
        "memory.stat": "anon 7\ninactive_file 1000\n",
        "memory.events": "low 0\nhigh 0\noom 5\noom_kill 3\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "pids.current": "6\n",
        "pids.events": "max 4\n",
    },
}


def group(version: int, directory: Path) -> Group:
    names = ("memory", "cpu", "cpuacct", "pids")
    return Group(dict.fromkeys(names, Place(version, directory)))


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_written(tmp_path: Path, version: int) -> None:
    made = group(version, tmp_path / "box")
    assert not made.exists
    made.create(LIMITS)
    assert made.exists
    found = {path.name: path.read_text() for path in (tmp_path / "box").iterdir()}
    assert found == WRITTEN[version]
    (join,) = made.joins
    assert join.endswith("tasks" if version == 1 else "cgroup.procs")


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_read(tmp_path: Path, version: int) -> None:
    for name, text in TOLD[version].items():
        (tmp_path / name).write_text(text)
    made = group(version, tmp_path)
    assert made.counters() == Counters(kills=3, refusals=4)
    reading = made.reading()
    assert (reading.memory, reading.memory_peak) == (4000, 9000)
    assert (reading.cpu_seconds, reading.pids) == (1.5, 4)


def test_nothing_is_left_of_a_group_that_is_refused(tmp_path: Path) -> None:
    made = Group({"memory": Place(1, tmp_path / "box")})
    with pytest.raises(KeyError):
        made.create(Limits(cpus=0.5))  # a limit of a controller that it has not
    assert not made.exists


@pytest.mark.parametrize(
    ("mounts", "memberships", "expected"),
    [
        (
            "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "0::/user.slice/x",
            [(2, "/sys/fs/cgroup/user.slice/x")],
        ),
        (
            "31 1 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
            "32 1 0:28 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
            "3:pids:/a\n2:memory:/docker/1/b",
            [(1, "/sys/fs/cgroup/pids/a"), (1, "/sys/fs/cgroup/memory/b")],
        ),
        ("32 1 0:28 /docker/1 /m rw - cgroup cgroup rw,memory", "2:memory:/elsewhere", []),
        ("", "", []),
    ],
)
def test_where_this_process_is(
    tmp_path: Path, mounts: str, memberships: str, expected: list[tuple[int, str]]
) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    (tmp_path / "cgroup").write_text(memberships)
    found = hierarchies(tmp_path)
    assert [(each.version, str(each.own)) for each in found] == expected


def test_nobody_joins_what_only_pauses(tmp_path: Path) -> None:
    made = Group({"memory": Place(1, tmp_path / "a"), "freezer": Place(2, tmp_path / "b")})
    assert made.freezer is None
    made.create(Limits())
    assert made.joins == [str(tmp_path / "a" / "tasks")]
    assert made.freezer is not None
    assert made.freezer.directory == tmp_path / "b" / "paused"


def test_the_freezer_of_version_2_comes_first(tmp_path: Path) -> None:
    found = []
    for version, offered in ((1, "freezer"), (1, "memory"), (2, "cpuacct freezer")):
        own = tmp_path / f"{version}-{offered[:4]}"
        own.mkdir()
        found.append(Hierarchy(version, frozenset(offered.split()), own))
    groups = Cgroups.claim("ours", tmp_path / "record", found)
    assert (groups.version("memory"), groups.version("freezer")) == (1, 2)
    assert groups.version("cpuacct") is None  # nobody joins that group, so no time is counted
    found[2].own.rename(tmp_path / "gone")
    groups = Cgroups.claim("ours", tmp_path / "record", found)
    assert (groups.version("memory"), groups.version("freezer")) == (1, 1)
