"""Adapters against the real kernels, without a box."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from jupyter_client.manager import AsyncKernelManager

import kernels
from interpreter.languages import MIME, Adapter, Report, adapter_for
from interpreter.partner import Changes, Partner
from kernels.specs import KernelPaths, Languages, find_deno

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jupyter_client.asynchronous.client import AsyncKernelClient

CODE = {
    "typescript": {
        "name": "const ours = 1",
        "set": "Deno.env.set('MADE', 'a b')",
        "unset": "Deno.env.delete('GIVEN')",
        "chdir": "Deno.chdir('/usr')",
        "fail": "Deno.env.set('FAILED', '1'); throw new Error('x')",
        "loop": "Deno.env.set('LOOPED', '1'); console.log('on'); while (true) {}",
        "names": "[typeof report, typeof entered, typeof cwd].filter((t) => t !== 'undefined')",
        "shadow": "globalThis.report = 1; var cwd = 2; const env = 3; let Array = 4",
    },
    "r": {
        "name": "ours <- 1",
        "set": "Sys.setenv(MADE = 'a b')",
        "unset": "Sys.unsetenv('GIVEN')",
        "chdir": "setwd('/usr')",
        "fail": "Sys.setenv(FAILED = '1'); stop('x')",
        "loop": "Sys.setenv(LOOPED = '1'); cat('on\\n'); while (TRUE) Sys.sleep(0.01)",
        "names": "grep('^(report|entered|text|pair|cwd)$', ls(all.names = TRUE), value = TRUE)",
        "shadow": "paste0 <- function(...) stop('mine'); c <- 3; charToRaw <- quote",
    },
}
VALUES = {
    "EMPTY": "",
    "QUOTES": "a'b\"c`d\\e",
    "LINES": "one\ntwo\r\n\tthree\n",
    "DOLLAR": "$HOME ${X} $(id) #{x} %s",
    "UNICODE": "é \u2028 \U0001f600 \u202e",
    "LONG": "x" * 100_000,
}


@dataclass
class Ran:
    status: str = ""
    count: int | None = None
    data: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Kernel:
    def __init__(self, language: str, manager: AsyncKernelManager, env: Mapping[str, str]) -> None:
        self.code = CODE[language]
        self.manager = manager
        self.client: AsyncKernelClient = manager.client()
        self.env = dict(env)
        self.first: dict[str, str] = {}
        adapter = adapter_for(language)
        assert adapter is not None
        self.adapter: Adapter = adapter

    async def send(self, *requests: tuple[str, bool]) -> list[Ran]:
        """Code and whether it is silent, all in one pipeline; a report is waited for."""
        ids = [
            self.client.execute(code, silent=silent, stop_on_error=False)
            for code, silent in requests
        ]
        reporting = requests[-1][0] == self.adapter.after()
        return await self.collect(ids, reporting=reporting)

    async def collect(self, ids: list[str], *, reporting: bool = False) -> list[Ran]:
        runs = {name: Ran() for name in ids}
        while not all(run.status for run in runs.values()):
            reply = await self.client.get_shell_msg(timeout=20)
            run = runs.get(reply["parent_header"]["msg_id"], Ran())
            run.status = reply["content"]["status"]
            run.count = reply["content"].get("execution_count")
        busy = {name for name, run in runs.items() if run.status != "aborted"}
        while busy or (reporting and runs[ids[-1]].status != "aborted" and not self.reported(runs)):
            await self.output(runs, busy)
        return list(runs.values())

    async def output(self, runs: dict[str, Ran], busy: set[str]) -> None:
        message = await self.client.get_iopub_msg(timeout=20)
        parent = message["parent_header"].get("msg_id")
        content = message["content"]
        if content.get("execution_state") == "idle":
            busy.discard(parent)
        elif "data" in content and parent in runs:
            runs[parent].data.append(content["data"].get(MIME))
            runs[parent].texts.append(content["data"].get("text/plain", ""))

    def reported(self, runs: dict[str, Ran]) -> Report | None:
        found = [self.adapter.parse(data) for run in runs.values() for data in run.data]
        return next((report for report in found if report), None)


def report_of(kernel: Kernel, runs: list[Ran]) -> Report:
    report = kernel.reported({str(number): run for number, run in enumerate(runs)})
    assert report is not None
    return report


@pytest_asyncio.fixture(scope="module", params=["typescript", "r"])
async def kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Kernel]:
    deno = find_deno()
    language = next(each for each in Languages(deno=deno).all() if each.name == request.param)
    if language.reason:
        pytest.skip(language.reason)
    place = tmp_path_factory.mktemp("kernel")
    guest = Path(kernels.__file__).parent / "guest"
    paths = KernelPaths(python=sys.executable, guest=str(guest), deno=str(deno), home=str(place))
    manager = AsyncKernelManager(connection_file=str(place / "connection.json"))
    manager._kernel_spec = language.spec(paths)
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "GIVEN": "1", "PAGER": "mine"}
    with (place / "log").open("wb") as log:
        await manager.start_kernel(env=env, cwd=str(place), stdout=log, stderr=log)
    kernel = Kernel(request.param, manager, env)
    kernel.client.start_channels()
    try:
        await kernel.client.wait_for_ready(timeout=30)
        yield kernel
    finally:
        kernel.client.stop_channels()
        await manager.shutdown_kernel(now=True)


@pytest_asyncio.fixture
async def partner(kernel: Kernel, tmp_path: Path) -> Partner:
    """In step with the kernel, in a directory of its own."""
    partner = Partner(kernel.adapter, kernel.env, str(tmp_path))
    report = report_of(kernel, await kernel.send((partner.after(), True)))
    kernel.first = kernel.first or dict(report.env)
    changes = dict.fromkeys(report.env) | kernel.first
    reset = kernel.adapter.before(changes, str(tmp_path))
    assert reset
    runs = await kernel.send((reset, True), (partner.after(), True))
    assert [True for run in runs for data in run.data if partner.learn(data)]
    return partner


async def cell(
    kernel: Kernel, partner: Partner, code: str, env: Mapping[str, str], cwd: str
) -> tuple[Changes, list[Ran]]:
    before = partner.before(env, cwd)
    requests = [(before, True)] if before else []
    runs = await kernel.send(*requests, (code, False), (partner.after(), True))
    if runs[-1].status == "aborted":
        runs[-1:] = await kernel.send((partner.after(), True))
    (changes,) = changes_of(partner, runs)
    return changes, runs


def changes_of(partner: Partner, runs: list[Ran]) -> list[Changes]:
    found = [partner.changes(data) for run in runs for data in run.data]
    return [changes for changes in found if changes is not None]


def entered_in(partner: Partner, runs: list[Ran]) -> list[str]:
    found = [partner.entered(data) for run in runs for data in run.data]
    return [path for path in found if path is not None]


async def test_values_arrive_as_they_are(kernel: Kernel, partner: Partner, tmp_path: Path) -> None:
    odd = tmp_path / "o'\"$ é\n😀"
    odd.mkdir()
    env = kernel.env | VALUES
    changes, runs = await cell(kernel, partner, "1", env, str(odd))
    assert changes == Changes()
    report = report_of(kernel, runs)
    assert report.cwd == str(odd)
    assert {name: report.env[name] for name in VALUES} == VALUES
    assert partner.before(env, str(odd)) is None
    changes, runs = await cell(kernel, partner, "1", kernel.env, str(odd))
    assert changes == Changes()
    report = report_of(kernel, runs)
    assert not VALUES.keys() & report.env.keys()


async def test_what_a_cell_changes_is_reported(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    env, cwd = kernel.env, str(tmp_path)
    changes, _ = await cell(kernel, partner, kernel.code["set"], env, cwd)
    assert changes == Changes(set={"MADE": "a b"})
    env = env | {"MADE": "a b"}
    assert partner.before(env, cwd) is None
    changes, _ = await cell(kernel, partner, kernel.code["unset"], env, cwd)
    assert changes == Changes(unset=("GIVEN",))
    del env["GIVEN"]
    changes, _ = await cell(kernel, partner, kernel.code["chdir"], env, cwd)
    assert changes == Changes(cwd="/usr")
    assert partner.before(env, "/usr") is None


async def test_a_failing_cell_reports_too(kernel: Kernel, partner: Partner, tmp_path: Path) -> None:
    changes, runs = await cell(kernel, partner, kernel.code["fail"], kernel.env, str(tmp_path))
    assert runs[0].status == "error"
    assert changes == Changes(set={"FAILED": "1"})


async def test_an_interrupted_cell_reports_too(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    looping = kernel.client.execute(kernel.code["loop"], stop_on_error=False)
    while True:
        message = await kernel.client.get_iopub_msg(timeout=20)
        if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == looping:
            break
    await asyncio.gather(kernel.manager.interrupt_kernel(), kernel.collect([looping]))
    changes, _ = await cell(kernel, partner, "1", kernel.env, str(tmp_path))
    assert changes.set in ({"LOOPED": "1"}, {})


async def test_counts_and_names_are_left_alone(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    names = kernel.code["names"]
    await cell(kernel, partner, kernel.code["name"], kernel.env, str(tmp_path))
    _, first = await cell(kernel, partner, names, kernel.env, str(tmp_path))
    env = kernel.env | {"MORE": "1"}
    _, last = await cell(kernel, partner, names, env, str(tmp_path))
    assert first[0].count is not None
    assert last[1].count == first[0].count + 1
    for runs in (first, last):
        texts = [text for run in runs for text in run.texts if text]
        assert [text.strip() for text in texts] in (["[]"], ["character(0)"])


async def test_a_missing_directory_gives_its_nearest_parent(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    code = partner.before(kernel.env, str(tmp_path / "gone" / "deep"))
    assert code
    runs = await kernel.send((code, True), (partner.after(), True))
    assert entered_in(partner, runs) == [str(tmp_path)]
    assert changes_of(partner, runs) == [Changes()]
    assert partner.before(kernel.env, str(tmp_path / "gone" / "deep")) is not None


async def test_a_directory_removed_under_the_kernel(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    await cell(kernel, partner, "1", kernel.env, str(here))
    here.rmdir()
    changes, _ = await cell(kernel, partner, "1", kernel.env, str(here))
    assert changes == Changes()
    code = partner.before(kernel.env, str(here))
    assert code
    runs = await kernel.send((code, True), (partner.after(), True))
    assert entered_in(partner, runs) == [str(tmp_path)]


async def test_a_lost_report_loses_nothing(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    env = kernel.env | {"SENT": "1"}
    assert partner.before(env, str(tmp_path)) is not None
    await kernel.send((kernel.code["set"], False))
    assert partner.changes(None) is None
    changes, runs = await cell(kernel, partner, "1", env, str(tmp_path))
    assert changes == Changes(set={"MADE": "a b"})
    report = report_of(kernel, runs)
    assert report.env["SENT"] == "1"


async def test_bytes_that_are_not_utf8(kernel: Kernel, partner: Partner, tmp_path: Path) -> None:
    env = kernel.env | {"BYTES": os.fsdecode(b"a\xffb"), "AFTER": "1"}
    changes, runs = await cell(kernel, partner, "1", env, str(tmp_path))
    assert changes == Changes()
    report = report_of(kernel, runs)
    assert report.env["AFTER"] == "1"
    held = kernel.adapter.holds("BYTES", env["BYTES"])
    assert report.env.get("BYTES") == (env["BYTES"] if held else None)


async def test_users_names_do_not_get_in_the_way(
    kernel: Kernel, partner: Partner, tmp_path: Path
) -> None:
    await kernel.send((kernel.code["shadow"], False))
    env = kernel.env | {"AFTER": "1"}
    changes, _ = await cell(kernel, partner, kernel.code["set"], env, str(tmp_path))
    assert changes == Changes(set={"MADE": "a b"})


HOSTILE: list[object] = [
    None,
    [],
    {},
    {MIME: "{}"},
    3,
    "",
    "null",
    "[" * 100_000,
    json.dumps({"cwd": "/", "env": []}),
    json.dumps({"cwd": 3, "env": {}}),
    json.dumps({"cwd": "relative", "env": {}}),
    json.dumps({"cwd": "/\0", "env": {}}),
    json.dumps({"cwd": "/", "env": {"A": 1}}),
    json.dumps({"cwd": "/", "env": {"A=B": "1"}}),
    json.dumps({"cwd": "/", "env": {"": "1"}}),
    json.dumps({"cwd": "/", "env": {"A": "\0"}}),
    json.dumps({"cwd": "/", "env": {"A": "\ud800"}}),
    json.dumps({"cwd": "/\ud800", "env": {}}),
    '{"cwd": "/", "env": {}}' + " " * (17 << 20),
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: str(data)[:40])
@pytest.mark.parametrize("language", ["javascript", "r"])
def test_hostile_reports_are_refused(language: str, data: object) -> None:
    adapter = adapter_for(language)
    assert adapter is not None
    assert adapter.parse(data) is None
    assert adapter.entered(data) is None


def test_a_report_in_hexadecimal() -> None:
    adapter = adapter_for("r")
    assert adapter is not None
    document = {"cwd": b"/\xff".hex(), "env": {b"A".hex(): b"\n".hex(), b"B".hex(): ""}}
    assert adapter.parse(json.dumps(document)) == Report("/\udcff", {"A": "\n", "B": ""})
    assert adapter.parse(json.dumps({"cwd": "2f", "env": {"zz": ""}})) is None


def test_other_languages_have_no_adapter() -> None:
    assert adapter_for("python") is None
    assert adapter_for("octave") is None


def test_r_is_there_when_the_machine_has_it() -> None:
    """So that the tests above cannot be skipped unseen."""
    if shutil.which("R", path="/usr/bin:/usr/local/bin") is None:
        pytest.skip("R is not installed")
    assert any(each.name == "r" for each in Languages(deno=None).all())
