"""The walls of a box where no namespaces can be had: Landlock's rules, a filter, and a supervisor.

What is handled here and not granted is refused by the kernel. See `guest/confine.py` for how the
rules are put up, and `guest/supervisor.py` for what stays outside.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import shlex
import socket
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from interpreter import seccomp, walls
from interpreter.errors import NotReady
from interpreter.walls import GUEST, KERNEL_GUEST, SYSTEM_ETC, BoxPlan

CREATE_RULESET = 444
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
MAKE_DEVICES = 1 << 6 | 1 << 11
TRUNCATE, IOCTL = 1 << 14, 1 << 15
RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, TRUNCATE), (5, IOCTL))
"""On files, and the ABI that has them first."""
CONNECT_TCP = 2
SIGNALS_AND_ABSTRACT = 3
READ = EXECUTE | READ_FILE | READ_DIR
USE = READ_FILE | WRITE_FILE | IOCTL
SHARE = READ_FILE | WRITE_FILE | TRUNCATE | 1 << 8 | 1 << 5 | READ_DIR
"""Make, use and remove files of one's own in a directory that is everybody's."""
LEAST, LEAST_FOR_ONE_USER = 3, 6
"""ABIs: with truncation; with signals, which only uids keep apart before."""
KERNELS = {LEAST: "6.2", LEAST_FOR_ONE_USER: "6.12"}

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc")
OF_MACHINE = (
    "passwd", "group", "hosts", "hostname", "nsswitch.conf", "host.conf", "gai.conf", "bash.bashrc",
    "bash.bash_logout", "bash_completion", "bash_completion.d", "profile", "profile.d", "gitconfig",
    "login.defs", "shells", "ssh/ssh_config", "ssh/ssh_config.d", "wgetrc",
)  # fmt: skip
"""What programs read of `/etc`, which here is the machine's own."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")


def version() -> int:
    """Landlock's ABI here; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, 0, 1)))


def lacking(uid: int | None) -> str | None:
    """Why the tier cannot be had on this machine, before it is tried."""
    abi = version()
    if abi == 0:
        return "the kernel has no Landlock (Linux 6.2, with `landlock` in its `lsm=` list)"
    if seccomp.here() is None:
        known = " and ".join(seccomp.ARCHITECTURES)
        return f"it needs the filter on system calls ({known}; this is {platform.machine()})"
    if os.geteuid() == 0 and uid is None:
        return "root has no uids here to give to boxes: run the service as another user"
    least = LEAST if uid is not None else LEAST_FOR_ONE_USER
    if abi < least:
        remedy = f"Linux {KERNELS[least]} is needed"
        if uid is None:
            remedy += f", or {KERNELS[LEAST]} for a service run by root"
        return f"the kernel's Landlock (ABI {abi}) keeps too little apart: {remedy}"
    return None


def command(plan: BoxPlan, init: list[str], *, listening: int, report: int) -> list[str]:
    """The argv that starts `init` inside."""
    architecture = seccomp.here()
    assert architecture, "the tier is not probed without"
    instructions = seccomp.shared(architecture, ask=plan.connects)
    order = {
        "uid": plan.uid,
        "gid": plan.gid,
        "rules": [[path, rights] for path, rights in rules(plan) if os.path.exists(path)],
        "handled": handled(version()),
        "filter": base64.b64encode(seccomp.assemble(instructions)).decode(),
        "ask": plan.connects,
        "init": init,
        "listening": listening,
        "report": report,
        "own": [*own_directories(plan), str(plan.run / "kernels")],
        "run": str(plan.run),
    }
    return [walls.python(), "-I", "-S", "-B", str(GUEST / "confine.py"), json.dumps(order)]


def handled(abi: int) -> dict[str, int]:
    return {
        "files": sum(rights for since, rights in RIGHTS if abi >= since),
        "network": CONNECT_TCP if abi >= 4 else 0,
        "scopes": SIGNALS_AND_ABSTRACT if abi >= 6 else 0,
    }


def rules(plan: BoxPlan) -> list[tuple[str, int]]:
    """What the box may do where; what is not there is left out by who uses this."""
    everything = handled(version())["files"] & ~MAKE_DEVICES & ~IOCTL
    sources = [mount.source for mount in plan.mounts]
    read = [
        *(*SYSTEM, *(f"/etc/{name}" for name in (*SYSTEM_ETC, *OF_MACHINE))),
        *(*sources, str(GUEST), str(KERNEL_GUEST), str(plan.run / "env"), str(plan.files / "etc")),
    ]
    write = [*own_directories(plan), str(plan.run / "kernels"), str(plan.run / "shell")]
    found = [(path, READ) for path in read]
    found += [(path, everything) for path in write]
    found += [(f"/dev/{name}", USE) for name in DEVICES]
    if plan.uid is not None:  # what others have there, the uid keeps it from
        found += [("/dev/pts", USE | READ_DIR), ("/dev/shm", SHARE)]
    return found


def own_directories(plan: BoxPlan) -> list[str]:
    return [str(plan.files / name) for name in ("workspace", "home", "tmp")]


def variables(plan: BoxPlan, *, proxied: bool) -> dict[str, str]:
    """What programs are told, since these are not where they look by themselves."""
    config = shlex.quote(str(plan.files / "etc" / "ssh" / "ssh_config"))
    ssh = {"GIT_SSH_COMMAND": f"ssh -F {config}"} if proxied else {}
    return {"TMPDIR": str(plan.files / "tmp"), **ssh}


def tell_proxy(plan: BoxPlan, listener: socket.socket) -> None:
    """Where the supervisor finds the way out: a port, and the one socket that may be there."""
    inode = os.fstat(listener.fileno()).st_ino
    file = plan.run / "proxy"
    file.write_text(f"{listener.getsockname()[1]} {inode}")
    file.chmod(0o644)


def open_ways(plan: BoxPlan, home: Path) -> None:
    """Let the boxes' group through, so that they come to what is theirs; nobody reads a list."""
    if plan.uid is None:
        return
    above = [each for each in plan.files.parents if each.is_relative_to(home)]
    files = [plan.files] if plan.files.stat().st_uid == os.geteuid() else []  # else a disk, its own
    for directory in (*above, *files, plan.run.parent, plan.run):
        os.chown(directory, -1, plan.gid)
        directory.chmod(0o710)


def is_way(directory: Path, gid: int) -> bool:
    return gid > 0 and directory.stat().st_gid == gid


def check_ways(paths: Iterable[str | Path], uid: int, gid: int) -> None:
    """Raises NotReady, with the remedy, where a box of `uid` cannot come to something it needs."""
    for path in paths:
        for parent in reversed(Path(path).absolute().parents):
            if not parent.exists():
                break
            found = parent.stat()
            mode = found.st_mode
            allowed = mode & (stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH)
            if found.st_uid != uid and not allowed:
                raise NotReady(
                    f"boxes have users of their own, which cannot pass {parent} on their way to "
                    f"{path}: `chmod o+x {parent}`, keep it elsewhere (CELLSHELL_HOME is for the "
                    "data directory), or run the service as another user"
                )
