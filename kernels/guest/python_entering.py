"""From outside into a running box, with no more rights there than any process of it has.

Loaded by path: nothing beside the standard library may be imported here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from typing import Any

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC
    | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)  # fmt: skip
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 4, 22, 24, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITIES_VERSION = 0x20080522
MAX_CAPABILITIES = 64
SOFT_OPEN_FILES = 4096

libc = ctypes.CDLL(None, use_errno=True)


def enter(init: int, groups: list[int]) -> None:
    """Into the control groups, then all namespaces of the process behind a pidfd; children of
    this process are in its pid namespace."""
    for group in groups:
        os.write(group, b"0")
    if os.geteuid() == 0:
        os.setgroups([])
    _check(libc.setns(init, NAMESPACES), "setns")


def lower(request: dict[str, Any]) -> None:
    """Take the user, limits and filter of what init starts, while the box cannot see it yet.

    Undumpable until the caller says otherwise: it still holds descriptors of the service's.
    """
    _limit(**request["rlimits"])
    _drop_rights(request["uid"], bytes.fromhex(request["filter"]))


def settle(request: dict[str, Any]) -> None:
    """Become what init would have started: its own session, signals, variables and directory."""
    os.setsid()
    _check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])


def _limit(open_files: int = 1 << 30, processes: int = -1) -> None:
    hard = min(open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SOFT_OPEN_FILES, hard), hard))
    if processes > 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))


def _drop_rights(uid: int, program: bytes) -> None:
    """Entering a user namespace gives every capability in it: they go, for good."""
    for capability in range(MAX_CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient")
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if program:
        _filter(program)
    # Another uid makes a process dumpable or not as the system is set up.
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter(program: bytes) -> None:
    described = _Program(len(program) // 8, program)
    status = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0)
    _check(status, "seccomp")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
