"""Files through the door: bytes as they are, in parts, by version, and never active."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from typing import Any

import httpx
import pytest

from api.content import disposition, guess_type

PASSIVE = "sandbox allow-scripts allow-forms"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.tar.gz", "application/gzip"),
        ("a.csv.bz2", "application/x-bzip2"),
        ("a.png", "image/png"),
        ("a", "application/octet-stream"),
        ("a\udcff.png", "image/png"),
        ("", "application/octet-stream"),
    ],
)
def test_types_are_guessed(name: str, kind: str) -> None:
    assert guess_type(name) == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b.txt", 'inline; filename="a b.txt"'),
        ('a"\\\r\n.txt', "inline; filename=\"a____.txt\"; filename*=UTF-8''a%22%5C%0D%0A.txt"),
        ("€.txt", "inline; filename=\"_.txt\"; filename*=UTF-8''%E2%82%AC.txt"),
        ("\udcff", "inline; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
    ],
)
def test_names_travel_in_ascii(name: str, value: str) -> None:
    assert disposition(name) == value


def content(session: str, path: str = "data.bin") -> str:
    return f"{session}/files/content?path={path}"


async def test_bytes_come_back_as_they_were(http: httpx.AsyncClient, session: str) -> None:
    for data in (b"", b"\0\xff\r\n", os.urandom(3_000_000)):
        written = await http.put(content(session), content=data)
        assert (written.status_code, written.json()["size"]) == (200, len(data))
        answer = await http.get(content(session))
        assert answer.content == data
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["content-security-policy"] == PASSIVE
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_body_is_taken_as_it_streams(http: httpx.AsyncClient, session: str) -> None:
    async def pieces() -> Any:
        for number in range(20):
            yield bytes([number]) * 1_000_000

    written = await http.put(content(session, "deep/er/streamed"), content=pieces())
    assert written.json()["size"] == 20_000_000


async def test_parts_and_versions(http: httpx.AsyncClient, session: str) -> None:
    await http.put(content(session), content=b"0123456789")
    whole = await http.get(content(session))
    etag = whole.headers["etag"]

    part = await http.get(content(session), headers={"Range": "bytes=2-4", "If-Range": etag})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    assert (await http.get(content(session), headers={"Range": "bytes=-3"})).content == b"789"

    beyond = await http.get(content(session), headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */10"

    known = await http.get(content(session), headers={"If-None-Match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)

    await http.put(content(session), content=b"9876543210")
    changed = {"Range": "bytes=0-1", "If-Range": etag, "If-None-Match": etag}
    assert (await http.get(content(session), headers=changed)).content == b"9876543210"


async def test_head_says_what_get_would(http: httpx.AsyncClient, session: str) -> None:
    await http.put(content(session), content=b"x" * 1000)
    get, head = await http.get(content(session)), await http.head(content(session))
    assert not head.content
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == get.headers[name]


async def test_what_the_kernel_makes_up_is_read_to_its_end(
    http: httpx.AsyncClient, session: str
) -> None:
    answer = await http.get(content(session, "/proc/version"))
    assert answer.content.startswith(b"Linux version")


async def test_names_that_are_not_utf8(http: httpx.AsyncClient, session: str) -> None:
    path = content(session, "odd/%FF%22%E2%82%AC.txt")
    written = await http.put(path, content=b"odd")
    assert written.json()["name"] == '\ufffd"€.txt'
    assert (await http.get(path)).content == b"odd"
    listed = (await http.get(f"{session}/files?path=odd")).json()
    assert [entry["name"] for entry in listed] == ['\ufffd"€.txt']
    shown = await http.post(f"{session}/exec", json={"command": r"test -f odd/$'\xff'\"€.txt"})
    assert shown.json()["exit_code"] == 0
    gone = await http.delete(f"{session}/files?path=odd/%FF%22%E2%82%AC.txt")
    assert gone.status_code == 204
    assert (await http.get(path)).json()["code"] == "file_not_found"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 422, "invalid_request"),
        ("?path=", 422, "invalid_request"),
        ("?path=%00", 422, "invalid_request"),
        ("?path=" + "x" * 5000, 422, "invalid_request"),
        ("?path=nope", 404, "file_not_found"),
        ("?path=nope/../nope", 404, "file_not_found"),
        ("?path=.", 400, "is_a_directory"),
        ("?path=/dev/null", 400, "not_a_file"),
        ("?path=/etc/passwd/x", 400, "not_a_directory"),
        ("?path=/etc/shadow", 404, "file_not_found"),
    ],
)
async def test_what_cannot_be_read(
    http: httpx.AsyncClient, session: str, query: str, status: int, code: str
) -> None:
    answer = await http.get(f"{session}/files/content{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_writer_who_goes_away_leaves_nothing(http: httpx.AsyncClient, session: str) -> None:
    await http.put(content(session, "kept"), content=b"old")

    async def half() -> Any:
        yield b"new" * 100_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await http.put(content(session, "kept"), content=half())
    assert (await http.get(content(session, "kept"))).content == b"old"


async def test_a_directory_travels_as_tar(http: httpx.AsyncClient, session: str) -> None:
    for name in ("tree/a.txt", "tree/sub/b.txt"):
        await http.put(content(session, name), content=name.encode())
    answer = await http.get(f"{session}/files/archive?path=tree")
    assert answer.headers["content-type"] == "application/x-tar"
    assert 'filename="tree.tar"' in answer.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert {"a.txt", "b.txt"} <= {name.rpartition("/")[2] for name in archive.getnames()}
    back = await http.put(f"{session}/files/archive?path=copy", content=answer.content)
    assert back.json()["type"] == "directory"
    assert (await http.get(content(session, "copy/sub/b.txt"))).content == b"tree/sub/b.txt"


async def test_trouble_with_archives_is_a_plain_answer(
    http: httpx.AsyncClient, session: str
) -> None:
    missing = await http.get(f"{session}/files/archive?path=nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "file_not_found")
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    refused = await http.put(f"{session}/files/archive?path=x", content=evil.getvalue())
    assert (refused.status_code, refused.json()["code"]) == (400, "unsafe_archive")


async def test_watching_what_is_not_there_is_a_plain_answer(
    http: httpx.AsyncClient, session: str
) -> None:
    answer = await http.get(f"{session}/files/watch?path=nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")


async def test_directories_are_made_moved_copied_and_deleted(
    http: httpx.AsyncClient, session: str
) -> None:
    files = f"{session}/files"
    made = await http.post(f"{files}/mkdir", json={"path": "m/n"})
    assert made.json()["type"] == "directory"
    await http.put(content(session, "m/n/f"), content=b"f")
    for verb, target in (("copy", "c"), ("move", "v")):
        body = {"source": "m", "destination": target}
        assert (await http.post(f"{files}/{verb}", json=body)).json()["name"] == target
    assert (await http.get(content(session, "v/n/f"))).content == b"f"
    full = await http.delete(f"{files}?path=c")
    assert (full.status_code, full.json()["code"]) == (409, "directory_not_empty")
    assert (await http.delete(f"{files}?path=c&recursive=true")).status_code == 204


async def test_many_at_once(http: httpx.AsyncClient, session: str) -> None:
    data = [os.urandom(50_000) for _ in range(20)]
    await asyncio.gather(
        *(http.put(content(session, f"many/{n}"), content=piece) for n, piece in enumerate(data))
    )
    answers = await asyncio.gather(*(http.get(content(session, f"many/{n}")) for n in range(20)))
    assert [answer.content for answer in answers] == data
