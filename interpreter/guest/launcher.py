"""Becomes bwrap as an unprivileged user, for a service that runs as root.

    python -I -S -B launcher.py '{"uid": K, "mounts": [[source, stage], ...], "argv": [...]}'

The sources (a sandbox's files, a Python below root's home) lie where uid K may not go. So this
binds them, still as root, below a tmpfs in a mount namespace of its own, and only then drops
to K and executes bwrap, whose arguments name the stages.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


def check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [os.fsencode(word) if word else None for word in (source, target, kind)]
    check(libc.mount(*words, flags, data.encode() if data else None), f"mount {target}")


def stage(mounts: list[list[str]]) -> None:
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    base = os.path.dirname(mounts[0][1])
    mount("tmpfs", base, "tmpfs", 0, "mode=0755,size=1m")
    for source, target in mounts:
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            open(target, "w").close()
        mount(source, target, None, MS_BIND)


def main() -> None:
    plan = json.loads(sys.argv[1])
    stage(plan["mounts"])
    os.setgroups([])
    os.setresgid(plan["uid"], plan["uid"], plan["uid"])
    os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.execve(plan["argv"][0], plan["argv"], {})


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"launcher: {error.strerror}")
