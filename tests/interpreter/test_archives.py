"""Directories as tar streams, out of a real box and into it."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable

import pytest
from boxed_session import boxed_session
from shelf import Shelf, chunks

from interpreter.errors import (
    DiskFull,
    FileNotFound,
    IsADirectory,
    NotADirectory,
    PermissionDenied,
    UnsafeArchive,
)

pytestmark = pytest.mark.box


def archive(*members: tuple[str, dict[str, object]], data: bytes = b"data") -> bytes:
    """A tar of (name, attributes of the header)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, attributes in members:
            member = tarfile.TarInfo(name)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return out.getvalue()


DIRECTORY = {"type": tarfile.DIRTYPE, "mode": 0o755}
FILE: dict[str, object] = {}


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> dict[str, object]:
    return {"type": kind, "linkname": target}


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        shelf = Shelf(session)
        yield shelf
        await shelf.files.close()


@pytest.fixture
async def shelf(whole: Shelf) -> AsyncIterator[Shelf]:
    yield whole
    await whole.clear()


async def test_a_directory_comes_back_as_it_was(shelf: Shelf) -> None:
    for name in ("a", "deep/" + "long" * 60 + "/x", os.fsdecode(b"raw\xff"), "日本/\n'"):
        await shelf.put(f"from/{name}", os.urandom(3000))
    await shelf.files.write("from/run", chunks(b"#!"), mode="0751")
    await shelf.run("sh", "-c", "cd from; ln -s /usr/bin/env env; ln a hard; mkdir -m 555 closed")
    await shelf.put("from/.hidden", bytes(5 << 20))
    stream = b"".join([data async for data in shelf.files.archive("from")])
    assert (await shelf.files.extract("made/to", chunks(stream))).path == "/workspace/made/to"
    before, after = [
        [
            (info.path.removeprefix(f"/workspace/{root}"), info.type, info.mode, info.target)
            for info in await shelf.files.list(root, recursive=True, hidden=True)
        ]
        for root in ("from", "made/to")
    ]
    assert before == after and len(before) == 12
    assert await shelf.run("diff", "-r", "--no-dereference", "from", "made/to") == 0


async def test_what_no_archive_can_hold_is_left_out(shelf: Shelf) -> None:
    await shelf.put("from/a")
    await shelf.run("mkfifo", "from/pipe")
    stream = b"".join([data async for data in shelf.files.archive("from")])
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        assert tar.getnames() == ["a"]


async def test_no_archive_of_what_is_not_there(shelf: Shelf) -> None:
    await shelf.put("file")
    await shelf.put("closed/a")
    await shelf.run("chmod", "0", "closed")
    for path, error in (
        ("missing", FileNotFound),
        ("file", NotADirectory),
        ("closed", PermissionDenied),
    ):
        with pytest.raises(error):
            await anext(shelf.files.archive(path))
    await shelf.run("chmod", "0700", "closed")


async def test_a_reader_may_leave(shelf: Shelf) -> None:
    await shelf.put("from/a", bytes(20 << 20))
    stream = shelf.files.archive("from")
    await anext(stream)
    await stream.aclose()
    await shelf.files.close()
    assert await shelf.run("sh", "-c", "cat /proc/[0-9]*/cmdline | grep -q archive[.]py") == 1


async def test_members_replace_what_is_there(shelf: Shelf) -> None:
    await shelf.put("to/sub/a", b"old")
    await shelf.put("to/sub/kept", b"kept")
    await shelf.run("ln", "-s", "sub/kept", "to/link")
    new = archive(("./sub/a", FILE), ("link", FILE), ("x", {"mode": 0o6755}), ("x", FILE))
    await shelf.files.extract("to", chunks(new))
    assert await shelf.get("to/sub/a") == await shelf.get("to/link") == b"data"
    assert await shelf.get("to/sub/kept") == b"kept"


async def test_setuid_is_dropped(shelf: Shelf) -> None:
    await shelf.files.extract("to", chunks(archive(("x", {"mode": 0o7755}))))
    assert (await shelf.files.info("to/x")).mode == "0755"


async def test_compressed_and_in_single_bytes(shelf: Shelf) -> None:
    packed = gzip.compress(archive(("a", FILE)))
    await shelf.files.extract("to", chunks(*[packed[n : n + 1] for n in range(len(packed))]))
    assert await shelf.get("to/a") == b"data"


UNSAFE = {
    "dot dot": archive(("good", FILE), ("../out", FILE)),
    "dot dot inside": archive(("good", FILE), ("a/../../out", FILE)),
    "absolute": archive(("good", FILE), ("/workspace/out", FILE)),
    "through a symlink": archive(("l", link("/workspace")), ("l/out", FILE)),
    "through an inner symlink": archive(("d", DIRECTORY), ("l", link("d")), ("l/out", FILE)),
    "directory over a symlink": archive(("l", link("/workspace")), ("l", DIRECTORY)),
    "hard link out": archive(("h", link("../secret", tarfile.LNKTYPE))),
    "hard link absolute": archive(("h", link("/workspace/secret", tarfile.LNKTYPE))),
    "hard link to nothing": archive(("h", link("missing", tarfile.LNKTYPE))),
    "hard link through a symlink": archive(
        ("l", link("/workspace")), ("h", link("l/secret", tarfile.LNKTYPE))
    ),
    "hard link to a symlink": archive(
        ("l", link("/workspace/secret")), ("h", link("l", tarfile.LNKTYPE)), ("h", FILE)
    ),
    "through a file": archive(("f", FILE), ("f/out", FILE)),
    "fifo": archive(("good", FILE), ("p", {"type": tarfile.FIFOTYPE})),
    "device": archive(("good", FILE), ("d", {"type": tarfile.CHRTYPE})),
    "unknown type": archive(("good", FILE), ("u", {"type": b"U"})),
    "the directory itself": archive((".", link("/workspace"))),
    "empty": b"",
    "garbage": b"no tar archive" * 1000,
    "cut in the data": archive(("a", FILE), data=bytes(100_000))[:50_000],
    "cut in a header": archive(("good", FILE), ("b", FILE))[:1300],
    "damaged later": archive(("good", FILE))[:1024] + b"x" * 512,
    "bad compression": gzip.compress(archive(("good", FILE), data=os.urandom(9000)))[:5000],
}


@pytest.mark.parametrize("stream", UNSAFE.values(), ids=list(UNSAFE))
async def test_one_bad_member_refuses_the_whole(shelf: Shelf, stream: bytes) -> None:
    await shelf.put("secret", b"kept")
    with pytest.raises(UnsafeArchive):
        await shelf.files.extract("made/to", chunks(stream))
    assert os.listdir(shelf.host) == ["secret"]
    assert await shelf.get("secret") == b"kept"


async def test_no_way_through_a_symlink_that_is_there(shelf: Shelf) -> None:
    await shelf.files.mkdir("out")
    await shelf.files.mkdir("to")
    await shelf.run("ln", "-s", "../out", "to/l")
    with pytest.raises(UnsafeArchive):
        await shelf.files.extract("to", chunks(archive(("first", FILE), ("l/x", FILE))))
    assert (os.listdir(shelf.host / "out"), os.listdir(shelf.host / "to")) == ([], ["l"])


async def test_what_stands_in_the_way_keeps_all_out(shelf: Shelf) -> None:
    await shelf.put("to/file")
    await shelf.put("to/full/x")
    stream = archive(("a", FILE), ("file", DIRECTORY))
    with pytest.raises(NotADirectory):
        await shelf.files.extract("to", chunks(stream))
    with pytest.raises(IsADirectory):
        await shelf.files.extract("to", chunks(archive(("a", FILE), ("full", FILE))))
    with pytest.raises(NotADirectory):
        await shelf.files.extract("to/file", chunks(archive(("a", FILE))))
    assert sorted(os.listdir(shelf.host / "to")) == ["file", "full"]


async def test_a_full_disk_takes_nothing(shelf: Shelf) -> None:
    stream = archive(("a", FILE), ("b", FILE), data=os.urandom(40 << 20))
    with pytest.raises(DiskFull):
        await shelf.files.extract("/run/to", chunks(stream))
    assert await shelf.run("test", "-e", "/run/to") == 1


def stopping(stream: bytes, reached: asyncio.Event) -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        yield stream
        reached.set()
        await asyncio.Event().wait()

    return parts()


def failing(stream: bytes, reached: asyncio.Event) -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        yield stream
        reached.set()
        raise LookupError

    return parts()


@pytest.mark.parametrize("source", [stopping, failing])
async def test_a_sender_that_goes_away_leaves_nothing(
    shelf: Shelf, source: Callable[[bytes, asyncio.Event], AsyncIterator[bytes]]
) -> None:
    reached = asyncio.Event()
    stream = archive(("a", FILE), ("b", FILE))
    task = asyncio.create_task(shelf.files.extract("made/to", source(stream, reached)))
    await reached.wait()
    task.cancel()
    with pytest.raises((asyncio.CancelledError, LookupError)):
        await task
    await shelf.files.close()
    assert os.listdir(shelf.host) == []
