"""File operations, in a real box; what they do is looked at from outside it."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxed_session import boxed_session
from shelf import Shelf, chunks

from interpreter.errors import (
    CellshellError,
    DirectoryNotEmpty,
    DiskFull,
    FileExists,
    FileNotFound,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotAFile,
    PermissionDenied,
)

pytestmark = pytest.mark.box

LEVELS = """
import os
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
open("bottom", "w").close()
"""


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with boxed_session(tmp_path_factory.mktemp("box")) as session:
        shelf = Shelf(session)
        yield shelf
        await shelf.files.close()


@pytest.fixture
async def shelf(whole: Shelf) -> AsyncIterator[Shelf]:
    """An empty workspace, and afterwards nothing of ours in it."""
    yield whole
    await whole.clear()


# Writing and reading


async def test_what_is_written_is_read(shelf: Shelf) -> None:
    data = bytes(range(256)) * 9000
    info = await shelf.files.write("new/deep/a.bin", chunks(data[:7], b"", data[7:]))
    facts = (info.name, info.path, info.type, info.size, info.mode)
    assert facts == ("a.bin", "/workspace/new/deep/a.bin", "file", len(data), "0644")
    assert await shelf.get("new/deep/a.bin") == data
    for same in ("new/deep/a.bin", "/workspace//new/./deep/a.bin/"):
        assert info == await shelf.files.info(same)


async def test_a_version_is_told_from_the_next(shelf: Shelf) -> None:
    etags = set()
    for data in (b"one", b"two", b"two"):
        await shelf.put("a", data)
        opened = await shelf.files.read("a")
        os.close(opened.fd)
        etags.add(opened.etag)
    assert len(etags) == 3


async def test_modes(shelf: Shelf) -> None:
    await shelf.files.write("a", chunks(), mode="0755")
    assert (await shelf.files.write("a", chunks(b"x"))).mode == "0755"
    assert (await shelf.files.write("a", chunks(b"y"), append=True)).mode == "0755"
    assert (await shelf.files.write("a", chunks(), mode="600", append=True)).mode == "0600"
    assert await shelf.get("a") == b"xy"
    for mode in ("0999", "17777", ""):
        with pytest.raises(InvalidRequest):
            await shelf.files.write("a", chunks(), mode=mode)


async def test_symlinks_are_written_through(shelf: Shelf) -> None:
    await shelf.put("real/target", b"old")
    await shelf.run("ln", "-s", "real/target", "link")
    await shelf.run("ln", "-s", "made/later", "dangling")
    await shelf.run("ln", "-s", "round", "round")
    await shelf.put("link", b"new")
    await shelf.put("dangling", b"there")
    assert (shelf.host / "link").is_symlink() and await shelf.get("real/target") == b"new"
    assert (shelf.host / "dangling").is_symlink() and await shelf.get("made/later") == b"there"
    with pytest.raises(FileNotFound):
        await shelf.put("round")


async def test_only_regular_files_are_opened(shelf: Shelf) -> None:
    await shelf.run("mkfifo", "pipe")
    await shelf.run("mkdir", "dir")
    for path, error in (("pipe", NotAFile), ("/dev/null", NotAFile), ("dir", IsADirectory)):
        with pytest.raises(error):
            await shelf.files.read(path)
        for append in (False, True):
            with pytest.raises(error):
                await shelf.files.write(path, chunks(b"x"), append=append)


async def test_what_the_user_may_not_do(shelf: Shelf) -> None:
    await shelf.files.write("kept", chunks(b"kept"), mode="0444")
    for path in ("kept", "/etc/passwd", "/usr/bin/new", "/proc/self/mem", "/proc/new"):
        for append in (False, True):
            with pytest.raises((PermissionDenied, FileNotFound)):
                await shelf.files.write(path, chunks(b"x"), append=append)
    assert await shelf.get("kept") == b"kept"


async def test_paths_that_cannot_be(shelf: Shelf) -> None:
    await shelf.put("file")
    for path, error in (
        ("", InvalidRequest),
        ("a\0b", InvalidRequest),
        ("x" * 256, InvalidRequest),
        ("x/" * 3000, InvalidRequest),
        ("\ud800", InvalidRequest),
        ("file/below", NotADirectory),
        ("missing", FileNotFound),
    ):
        for operation in (shelf.files.info, shelf.files.read, shelf.files.list, shelf.files.delete):
            with pytest.raises(error):
                await operation(path)


async def test_a_writer_that_goes_away_changes_nothing(shelf: Shelf) -> None:
    await shelf.put("a", b"old")
    arrived = asyncio.Event()

    async def half(error: Exception | None) -> AsyncIterator[bytes]:
        yield b"new" * 1_000_000
        arrived.set()
        if error:
            raise error
        await asyncio.Event().wait()

    with pytest.raises(LookupError):
        await shelf.files.write("made/for/it", half(LookupError()))
    task = asyncio.create_task(shelf.files.write("a", half(None)))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [info.name for info in await shelf.files.list(hidden=True)] == ["a"]
    assert await shelf.get("a") == b"old"


async def test_a_full_disk_keeps_the_old_file(shelf: Shelf) -> None:
    await shelf.files.write("/run/full/a", chunks(b"old"))
    with pytest.raises(DiskFull):
        await shelf.files.write("/run/full/a", chunks(*[bytes(1 << 20)] * 80))
    assert await shelf.get("/run/full/a") == b"old"
    await shelf.put("big", os.urandom(66 << 20))
    with pytest.raises(DiskFull):
        await shelf.files.copy("big", "/run/full/b")
    listed = await shelf.files.list("/run/full", hidden=True)
    assert [info.name for info in listed] == ["a"]
    await shelf.files.delete("/run/full", recursive=True)


async def test_writers_at_once_do_not_mix(shelf: Shelf) -> None:
    texts = [bytes([65 + number]) * 300_000 for number in range(8)]
    await asyncio.gather(*[shelf.put("same/a", text) for text in texts])
    assert await shelf.get("same/a") in texts


# Listing


async def test_listing(shelf: Shelf) -> None:
    for path in ("b/2", "b/.hidden/x", "a", ".dot"):
        await shelf.put(path)
    await shelf.run("ln", "-s", "b", "c")

    async def names(**options: bool) -> list[str]:
        root = "/workspace/"
        return [info.path.removeprefix(root) for info in await shelf.files.list(**options)]

    assert await names() == ["a", "b", "c"]
    assert await names(recursive=True) == ["a", "b", "b/2", "c"]
    everything = [".dot", "a", "b", "b/.hidden", "b/.hidden/x", "b/2", "c"]
    assert await names(recursive=True, hidden=True) == everything
    link = (await shelf.files.list())[2]
    assert (link.type, link.target) == ("symlink", "b")
    assert [info.name for info in await shelf.files.list("c")] == ["2"]


async def test_names_of_any_bytes(shelf: Shelf) -> None:
    names = ["quote'\"\n$(x)", "-rf", "日本", os.fsdecode(b"\xff\xfe"), "*"]
    for name in names:
        await shelf.put(name, os.fsencode(name))
        assert await shelf.get(name) == os.fsencode(name)
    listed = [info.model_dump_json() for info in await shelf.files.list()]
    assert json.loads(listed[-1])["name"] == "\ufffd"
    for name in names:
        await shelf.files.delete(name)


async def test_a_long_listing_is_whole(shelf: Shelf) -> None:
    make = "import os\nfor n in range(8000): os.symlink('x', f'{n:05}')"
    assert await shelf.python(make) == 0
    assert [info.name for info in await shelf.files.list()] == [f"{n:05}" for n in range(8000)]


# Directories, deleting


async def test_mkdir(shelf: Shelf) -> None:
    assert (await shelf.files.mkdir("a/b")).type == "directory"
    await shelf.files.mkdir("a/b")
    await shelf.put("file")
    for path, recursive, error in (
        ("a", False, FileExists),
        ("file", False, FileExists),
        ("file", True, FileExists),
        ("x/y", False, FileNotFound),
        ("file/x", True, NotADirectory),
    ):
        with pytest.raises(error):
            await shelf.files.mkdir(path, recursive)


async def test_deleting_goes_through_no_link(shelf: Shelf) -> None:
    await shelf.put("kept/a", b"a")
    for place in ("link", "tree/link"):
        await shelf.files.mkdir("tree")
        await shelf.run("ln", "-s", "/workspace/kept", place)
    await shelf.files.delete("link/", recursive=True)
    with pytest.raises(DirectoryNotEmpty):
        await shelf.files.delete("tree")
    await shelf.files.delete("tree", recursive=True)
    assert os.listdir(shelf.host) == ["kept"] and await shelf.get("kept/a") == b"a"


@pytest.mark.parametrize("path", ["/workspace", "/workspace/a/..", "/", "~/../user", "/home"])
async def test_the_workspace_itself_stays(shelf: Shelf, path: str) -> None:
    await shelf.put("a/b", b"kept")
    with pytest.raises(PermissionDenied):
        await shelf.files.delete(path.replace("~", "/home/user"), recursive=True)
    with pytest.raises(CellshellError):
        await shelf.files.move("/workspace", "/tmp/elsewhere")
    assert await shelf.get("a/b") == b"kept"


async def test_trees_that_are_hard_to_delete(shelf: Shelf) -> None:
    await shelf.files.mkdir("deep")
    assert await shelf.python('import os; os.chdir("deep")' + LEVELS) == 0
    await shelf.put("closed/in/a")
    await shelf.run("chmod", "0", "closed/in")
    await shelf.run("chmod", "0", "closed")
    await shelf.files.delete("deep", recursive=True)
    await shelf.files.delete("closed", recursive=True)
    assert os.listdir(shelf.host) == []


# Moving, copying


async def test_moving(shelf: Shelf) -> None:
    await shelf.put("a", b"a")
    await shelf.put("b", b"b")
    with pytest.raises(FileExists):
        await shelf.files.move("a", "b")
    assert (await shelf.files.move("a", "b", overwrite=True)).path == "/workspace/b"
    assert await shelf.get("b") == b"a"
    await shelf.run("ln", "b", "other")
    await shelf.files.move("b", "other", overwrite=True)
    await shelf.files.move("other", "other", overwrite=True)
    assert os.listdir(shelf.host) == ["other"]


async def test_moving_directories(shelf: Shelf) -> None:
    await shelf.put("from/x")
    await shelf.put("full/y")
    await shelf.put("file")
    await shelf.files.mkdir("empty")
    for source, destination, error in (
        ("from", "full", DirectoryNotEmpty),
        ("from", "file", NotADirectory),
        ("file", "full", IsADirectory),
        ("from", "from/in", InvalidRequest),
        ("file", "missing/x", FileNotFound),
        ("missing", "x", FileNotFound),
    ):
        for operation in (shelf.files.move, shelf.files.copy):
            with pytest.raises(error):
                await operation(source, destination, overwrite=True)
    await shelf.files.move("from", "empty", overwrite=True)
    assert await shelf.get("empty/x") == b""


async def test_moving_to_another_file_system(shelf: Shelf) -> None:
    await shelf.put("tree/a", b"a" * 100_000)
    await shelf.run("ln", "-s", "a", "tree/link")
    await shelf.files.move("tree", "/tmp/tree")
    assert os.listdir(shelf.host) == []
    assert await shelf.get("/tmp/tree/link") == b"a" * 100_000
    await shelf.files.move("/tmp/tree", "back")
    assert (shelf.host / "back" / "link").is_symlink()


async def test_copying_keeps_what_a_tree_is_made_of(shelf: Shelf) -> None:
    await shelf.files.write("tree/run", chunks(b"#!"), mode="0755")
    await shelf.run("ln", "-s", "/nowhere", "tree/link")
    await shelf.run("mkfifo", "tree/pipe")
    await shelf.run("truncate", "-s", "20G", "tree/sparse")
    await shelf.run("chmod", "0555", "tree")
    copied = await shelf.files.copy("tree", "again")
    assert (copied.path, copied.mode) == ("/workspace/again", "0555")
    facts = [
        [(info.name, info.type, info.mode, info.size, info.target) for info in listed]
        for listed in (await shelf.files.list("tree"), await shelf.files.list("again"))
    ]
    assert facts[0] == facts[1] and len(facts[0]) == 4
    assert (shelf.host / "again/sparse").stat().st_blocks == 0
    for tree in ("tree", "again"):
        await shelf.run("chmod", "0755", tree)


async def test_a_copy_nobody_waits_for_leaves_nothing(shelf: Shelf) -> None:
    await shelf.run("mkdir", "tree")
    await shelf.run("sh", "-c", "for n in $(seq 60); do head -c 2000000 /dev/zero > tree/$n; done")
    begun = asyncio.create_task(something_made_in(shelf.host))
    task = asyncio.create_task(shelf.files.copy("tree", "copy"))
    assert (await begun).startswith(".cellshell-")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await shelf.files.close()
    assert os.listdir(shelf.host) == ["tree"]


async def something_made_in(directory: Path) -> str:
    """The name of the next entry, as soon as it is there."""
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(fd, os.fsencode(directory), 0x100)
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ready.set)
    try:
        await ready.wait()
        return os.read(fd, 4096)[16:].split(b"\0")[0].decode()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


async def test_a_copy_that_has_no_place_names_the_place(shelf: Shelf) -> None:
    await shelf.files.write("source", chunks(b"data"))
    with pytest.raises(FileNotFound) as caught:
        await shelf.files.copy("source", "missing/target")
    assert "missing/target" in caught.value.message
    assert "~" not in caught.value.message
