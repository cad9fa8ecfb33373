"""What a box is made of, and how it is started where namespaces can be had: with bubblewrap.

The profile, argument by argument, follows what was attacked and measured; the order matters
(remounts last). bwrap is started with an empty environment and `--as-pid-1`, since otherwise
/proc/1/environ would show the service's own environment to the code.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

GUEST = Path(__file__).parent / "guest"
KERNEL_GUEST = Path(__file__).parent.parent / "kernels" / "guest"
STAGE = "/mnt"
BOX_UID = 1000
SYSTEM_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "inputrc",
    "java-17-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime",
    "magic", "mime.types", "os-release", "pki", "protocols", "R", "services", "ssl", "terminfo",
    "timezone",
)  # fmt: skip


Tier = Literal["bwrap", "process", "none"]


class Mount(NamedTuple):
    source: str
    inside: str
    writable: bool = False


@dataclass(frozen=True)
class BoxPaths:
    """Paths as the code sees them."""

    workspace: str
    home: str
    run: str
    guest: str
    kernel_guest: str

    def actual(self, path: str) -> str:
        """An absolute path as clients write it, in the place where the code sees it."""
        for known, here in ((INSIDE.workspace, self.workspace), (INSIDE.home, self.home)):
            if path == known or path.startswith(known + "/"):
                return here + path[len(known) :]
        return path


INSIDE = BoxPaths(
    workspace="/workspace",
    home="/home/user",
    run="/run/cellshell",
    guest="/opt/cellshell/guest",
    kernel_guest="/opt/cellshell/kernels",
)


@dataclass(frozen=True)
class BoxPlan:
    """What one box is made of."""

    files: Path
    """Host directory with `workspace`, `home` and `etc` of the sandbox."""
    run: Path
    """Host directory with `kernels`, `env` and the control socket."""
    uid: int | None = None
    """The box's uid on the host, for a service run by root."""
    gid: int = 0
    """In the tier `process`, the group of all boxes, to which the ways to their files are open."""
    mounts: list[Mount] = field(default_factory=list)
    tier: Tier = "bwrap"
    connects: bool = False
    """In the tier `process`, whether its code can connect to itself and to its proxy."""
    rlimits: dict[str, int] = field(default_factory=dict)
    """What init sets, on itself and what it starts: `open_files`, `processes`."""
    tmp_bytes: int = 1 << 30
    shm_bytes: int = 1 << 29

    @property
    def confined(self) -> bool:
        """Whether the box has namespaces of its own, and with them paths, processes, a network."""
        return self.tier == "bwrap"

    @property
    def paths(self) -> BoxPaths:
        if self.confined:
            return INSIDE
        return BoxPaths(
            workspace=str(self.files / "workspace"),
            home=str(self.files / "home"),
            run=str(self.run),
            guest=str(GUEST),
            kernel_guest=str(KERNEL_GUEST),
        )


def python() -> str:
    """The interpreter that runs init, by its real path: a box sees no virtual environment."""
    return os.path.realpath(sys.executable)


def command(plan: BoxPlan, init: list[str], *, fds: list[str]) -> list[str]:
    """The argv that starts `init` in the box; `fds` are additional bwrap arguments."""
    if not plan.confined:
        return init
    mounts = [*box_mounts(plan), *plan.mounts]
    if plan.uid is None:
        return [*bwrap(plan, mounts), *fds, "--", *init]
    staged = [mount._replace(source=f"{STAGE}/{n}") for n, mount in enumerate(mounts)]
    order = {
        "uid": plan.uid,
        "mounts": [
            [mount.source, stage.source] for mount, stage in zip(mounts, staged, strict=True)
        ],
        "argv": [*bwrap(plan, staged), *fds, "--", *init],
    }
    return [python(), "-I", "-S", "-B", str(GUEST / "launcher.py"), json.dumps(order)]


def box_mounts(plan: BoxPlan) -> list[Mount]:
    mounts = [
        Mount(str(plan.files / "workspace"), INSIDE.workspace, True),
        Mount(str(plan.files / "home"), INSIDE.home, True),
        Mount(str(plan.run / "kernels"), f"{INSIDE.run}/kernels", True),
        Mount(str(plan.run / "env"), f"{INSIDE.run}/env"),
        Mount(str(GUEST), INSIDE.guest),
        Mount(str(KERNEL_GUEST), INSIDE.kernel_guest),
    ]
    etc = plan.files / "etc"
    return mounts + [Mount(str(file), f"/etc/{file.name}") for file in sorted(etc.iterdir())]


def bwrap(plan: BoxPlan, mounts: list[Mount]) -> list[str]:
    words = [
        bwrap_program(),
        "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
        "--unshare-cgroup", "--unshare-net",
        "--uid", str(BOX_UID), "--gid", str(BOX_UID), "--cap-drop", "ALL",
        "--hostname", "sandbox", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin",
        "--new-session", "--as-pid-1",
        *system_words(),
        "--proc", "/proc", "--dev", "/dev",
        "--size", str(plan.shm_bytes), "--tmpfs", "/dev/shm",
        "--size", str(plan.tmp_bytes), "--tmpfs", "/tmp",
        "--size", str(64 << 20), "--tmpfs", "/run", "--dir", "/var/tmp",
    ]  # fmt: skip
    for mount in mounts:
        words += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.inside]
    return [*words, "--chdir", "/", "--remount-ro", "/dev", "--remount-ro", "/"]


def bwrap_program() -> str:
    return shutil.which("bwrap") or "bwrap"


def system_words() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            words += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    for name in SYSTEM_ETC:
        if os.path.exists(f"/etc/{name}"):
            words += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    return words


def write_etc(etc: Path, logout: str) -> None:
    """The box's own `/etc`: one user, no resolver, and bash's report at the end of a shell."""
    etc.mkdir(parents=True, exist_ok=True)
    user = f"user:x:{BOX_UID}:{BOX_UID}:user:{INSIDE.home}:/bin/bash\n"
    files = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{user}",
        "group": f"root:x:0:\nuser:x:{BOX_UID}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n",
        "hostname": "sandbox\n",
        "resolv.conf": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "bash.bash_logout": logout,
    }
    for name, text in files.items():
        (etc / name).write_text(text)
        (etc / name).chmod(0o644)
