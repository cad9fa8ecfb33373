"""The log of the way out: what is kept of it, and what happens when it cannot be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from restarting import BASE, SANDBOX, serving

from interpreter.network_log import KEPT, NetworkLog


def note(log: NetworkLog, number: int) -> None:
    noted = log.note("GET", f"host{number}.example", 80, "allowed", "open", "192.0.2.1")
    noted.bytes_in = number
    log.keep(noted)


def test_the_next_service_finds_it_and_counts_on(tmp_path: Path) -> None:
    first = NetworkLog(tmp_path / "log")
    for number in range(1, 4):
        note(first, number)
    went_on = first.note("CONNECT", "example.org", 443, "allowed", "open")
    later = NetworkLog(tmp_path / "log")
    assert later.last == 4 and later.after(0) == first.after(0)
    assert [each.bytes_in for each in later.after(0)] == [1, 2, 3, None]
    note(later, 5)
    first.keep(went_on)  # an entry that is written again takes its own place
    assert [each.number for each in NetworkLog(tmp_path / "log").after(3)] == [4, 5]


def test_it_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    log = NetworkLog(tmp_path / "log")
    for number in range(1, 5 * KEPT + 1):
        note(log, number)
    found = NetworkLog(tmp_path / "log").after(0)
    assert [each.number for each in found] == list(range(4 * KEPT + 1, 5 * KEPT + 1))
    assert found == log.after(0)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 << 20
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("torn", [b'{"number":3,"ti', b"\xff\0\n", b"null\n", b'{"number":[]}\n'])
def test_a_line_that_is_none_costs_no_other(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    log = NetworkLog(path)
    note(log, 1)
    note(log, 2)
    with path.open("ab") as file:
        file.write(torn)
    again = NetworkLog(path)
    note(again, 3)
    assert [each.bytes_in for each in NetworkLog(path).after(0)] == [1, 2, 3]


def test_a_place_that_is_gone_or_no_file_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for path in (tmp_path / "gone" / "log", tmp_path / "log"):
        log = NetworkLog(path)
        note(log, 1)
        assert [each.number for each in log.after(0)] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to mount a small disk, is not installed")
def test_a_full_disk_breaks_nothing_and_leaves_no_torn_line(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        log = NetworkLog(tmp_path / "log")
        for number in range(1, 1001):
            note(log, number)
        assert log.last == 1000
        kept = (tmp_path / "log").read_bytes()
        assert kept.endswith(b"\n") and len(kept) > 32 << 10
        assert 1 < NetworkLog(tmp_path / "log").last < 1000
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.box
async def test_it_outlives_a_service_that_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await service.client.delete(SANDBOX)
        made = await service.client.put(SANDBOX, json={"network": {"allow": ["example.org"]}})
        assert made.status_code == 201, made.text
        ask = "curl -s --max-time 10 http://denied.example/"
        result = await service.post(f"{BASE}/exec", command=ask)
        assert [each["code"] for each in result["notices"]] == ["network_denied"]
        before = (await service.client.get(f"{SANDBOX}/network/log")).json()
        await service.restart()
        assert (await service.client.get(f"{SANDBOX}/network/log")).json() == before
        result = await service.post(f"{BASE}/exec", command="true")
        assert result["notices"] == []
        await service.post(f"{BASE}/exec", command=ask)
        after = (await service.client.get(f"{SANDBOX}/network/log")).json()
        assert [each["number"] for each in after] == [1, 2]
