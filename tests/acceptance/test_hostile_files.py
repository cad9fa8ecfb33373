"""File names, trees and archives that nobody sane would make."""

from __future__ import annotations

import io
import tarfile
from urllib.parse import quote

import httpx
import pytest

from interpreter.settings import Settings
from tests.acceptance.conftest import Run

NAMES = ["a\nb", 'a"b', "-rf", " ", "é😀", "#?&%", "%00", "x" * 255, ".hidden", "\x7f\x1b[31m", "*"]


@pytest.mark.parametrize("name", NAMES)
async def test_odd_name_goes_in_and_out(
    http: httpx.AsyncClient, session: str, exec: Run, name: str
) -> None:
    address = f"{session}/files/content?path={quote(name, safe='')}"
    assert (await http.put(address, content=b"data")).json()["name"] == name
    assert (await http.get(address)).content == b"data"
    listed = (await http.get(f"{session}/files?hidden=true")).json()
    assert name in [entry["name"] for entry in listed]
    assert (await exec('cat -- "$N"', env={"N": name}))["stdout"] == "data"


async def test_name_that_is_not_utf8(http: httpx.AsyncClient, session: str, exec: Run) -> None:
    assert (await http.put(f"{session}/files/content?path=b%ff", content=b"1")).status_code == 200
    assert (await http.get(f"{session}/files/content?path=b%ff")).content == b"1"
    assert (await exec("cat $'b\\xff'; mkdir $'d\\xff'; cd $'d\\xff'; pwd"))["exit_code"] == 0
    assert (await http.get(f"{session}/files")).status_code == 200
    await exec("cd /workspace")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("fifo", 400, "not_a_file"),
        ("/dev/zero", 400, "not_a_file"),
        ("loop", 404, "file_not_found"),
        ("/proc/1/environ", 403, "permission_denied"),
        ("locked/f", 403, "permission_denied"),
        ("a%00b", 422, "invalid_request"),
        ("x" * 256, 422, "invalid_request"),
        ("../../etc/shadow", 404, "file_not_found"),
        ("", 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_read_is_refused(
    http: httpx.AsyncClient, session: str, exec: Run, path: str, status: int, code: str
) -> None:
    await exec("[ -p fifo ] || { mkfifo fifo; ln -s loop loop; mkdir -m 0 locked; }")
    answer = await http.get(f"{session}/files/content?path={path}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def tar(*members: tuple[str, bytes, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar(("../out", tarfile.REGTYPE, "")),
        tar(("/tmp/out", tarfile.REGTYPE, "")),
        tar(("l", tarfile.SYMTYPE, "/tmp"), ("l/out", tarfile.REGTYPE, "")),
        tar(("h", tarfile.LNKTYPE, "../../etc/passwd")),
        tar(("f", tarfile.FIFOTYPE, "")),
        tar(("d", tarfile.CHRTYPE, "")),
        b"no archive" * 200,
        b"",
    ],
)
async def test_unsafe_archive_leaves_nothing(
    http: httpx.AsyncClient, session: str, exec: Run, content: bytes
) -> None:
    await exec("rm -rf into; mkdir into")
    answer = await http.put(f"{session}/files/archive?path=into", content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "unsafe_archive")
    assert (await exec("ls -A into /tmp"))["stdout"] == "/tmp:\n\ninto:\n"


@pytest.mark.parametrize("path", ["/", "/workspace", "~", "..", "."])
async def test_the_places_themselves_stay(http: httpx.AsyncClient, session: str, path: str) -> None:
    answer = await http.delete(f"{session}/files", params={"path": path, "recursive": True})
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


async def test_sandbox_with_a_tree_deeper_than_any_path_is_deleted_whole(
    http: httpx.AsyncClient, fresh: str, settings: Settings
) -> None:
    dig = "for n in range(1200): os.mkdir('d'); os.symlink('/', 'root'); os.chdir('d')"
    body = {"command": f"python -c \"import os\n{dig}\nos.mkdir('locked', 0)\""}
    made = await http.post(f"{fresh}/sessions/default/exec", json=body)
    assert made.json()["exit_code"] == 0
    assert (await http.delete(fresh)).status_code == 204
    assert not (settings.home / fresh.removeprefix("/v1/")).exists()


@pytest.mark.parametrize(
    ("cwd", "status"),
    [("~", 201), ("new/one", 201), ("q" * 300, 400), ("/etc/no", 400), ("/etc/passwd", 400)],
)
async def test_directory_of_a_new_session(
    http: httpx.AsyncClient, sandbox: str, cwd: str, status: int
) -> None:
    answer = await http.post(f"{sandbox}/sessions", json={"cwd": cwd})
    assert answer.status_code == status
    expected = {"~": "/home/user", "new/one": "/workspace/new/one"}
    assert answer.json().get("cwd") == expected.get(cwd)
