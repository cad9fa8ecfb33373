"""A file system for the files of one sandbox alone: ext4 in a sparse file, mounted by root.

What the sandbox may store is the size asked for, to within a percent; the tables come on top.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from interpreter.errors import NotReady
from interpreter.removal import remove_tree

PROGRAMS = {"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "mount": "mount", "umount": "mount"}
"""What is needed, and the packages that have it."""
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
BYTES_FOR_A_FILE = 8192
INODE = 256
TABLES = 128 << 10
_log = logging.getLogger(__name__)


class Disk:
    """The file `image` holds `size` bytes of files for `uid`, seen at `directory`."""

    def __init__(self, image: Path, directory: Path, size: int, uid: int) -> None:
        self.directory = directory
        self.size = size
        self._image = image
        self._uid = uid

    async def mount(self) -> None:
        """Raises NotReady, with what the programs said."""
        await _whole(self._mount)

    async def unmount(self) -> None:
        """Nothing is lost. One that is in use goes away with its last user."""
        await _whole(self._unmount)

    def used(self) -> int | None:
        """Bytes; None while it is not mounted."""
        if not os.path.ismount(self.directory):
            return None
        found = os.statvfs(self.directory)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _mount(self) -> None:
        if os.path.ismount(self.directory):
            return
        self.directory.mkdir(exist_ok=True)
        if not self._image.exists():
            self._make()
        elif not _is_attached(self._image):
            # Its last use may have ended with the machine. Never while it is in use elsewhere.
            run("e2fsck", "-p", str(self._image), fine=(0, 1))
        options = "loop,nosuid,nodev,noatime,discard,noinit_itable"
        run("mount", "-t", "ext4", "-o", options, str(self._image), str(self.directory))

    def _make(self) -> None:
        fresh = self._image.with_suffix(".new")
        total = self.size + self.size * INODE // BYTES_FOR_A_FILE + TABLES
        with open(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.truncate(total // 4096 * 4096)
        owner = f"root_owner={self._uid}:{self._uid},lazy_itable_init=1,nodiscard"
        density = ["-b", "4096", "-i", str(BYTES_FOR_A_FILE), "-I", str(INODE), "-m", "0"]
        features = ["-O", "^has_journal,^resize_inode", "-E", owner]
        run("mke2fs", "-q", "-F", "-t", "ext4", *density, *features, str(fresh))
        fresh.rename(self._image)

    def _unmount(self) -> None:
        if os.path.ismount(self.directory):
            unmount(self.directory)


def lacking() -> str | None:
    """Why there can be no such file systems here, tried once; None: there can."""
    if os.geteuid() != 0:
        return "it takes root to mount a file system"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed: `apt-get install {package}`"
    directory = Path(tempfile.mkdtemp(prefix="cellshell-disk-"))
    disk = Disk(directory / "image", directory / "disk", 8 << 20, 0)
    try:
        disk._mount()
    except (NotReady, OSError) as error:
        return f"no file can be mounted as a file system: {error}"
    finally:
        disk._unmount()
        remove_tree(directory)
    return None


def unmount(directory: Path) -> None:
    """At once, or as soon as nobody uses it."""
    for words in (["umount"], ["umount", "--lazy"]):
        try:
            run(*words, str(directory))
            return
        except NotReady as error:
            said = error.message
    _log.warning("%s stays mounted: %s", directory, said)


def mounted_below(directory: Path) -> list[Path]:
    """Mount points of this process below a directory."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = Path(os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")))
        if directory in point.parents:
            found.append(point)
    return found


def run(program: str, *words: str, fine: tuple[int, ...] = (0,)) -> None:
    """Raises NotReady when it ends otherwise."""
    done = subprocess.run(
        [shutil.which(program, path=PATH) or program, *words],
        env={"PATH": PATH, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode not in fine:
        said = done.stdout.decode(errors="replace").strip()
        raise NotReady(f"the sandbox's disk cannot be had: {program}: {said[-800:]}")


def _is_attached(image: Path) -> bool:
    """Whether a loop device shows the file, mounted here or in another namespace."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if os.path.samefile(backing.read_text().rstrip("\n"), image):
                return True
        except OSError:
            continue  # detached meanwhile, or its file is gone
    return False


async def _whole(work: Callable[[], None]) -> None:
    """In a thread, to its end, also for a caller who goes away."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
