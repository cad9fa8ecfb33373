"""Puts up the walls of a box that has no namespaces, and starts its init inside them.

    python -I -S -B confine.py '{"uid", "gid", "rules", "handled", "filter", "init", ...}'

Landlock's rules, the uid of the box, no new privileges and the filter on system calls hold for init
and all below it. This process stays outside, as the box's supervisor.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import struct
import sys
from typing import Any

# Python is started isolated (-I), which leaves out the directory of the program itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from supervisor import Supervisor  # type: ignore[import-not-found]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1
OF_FILES = 0xC007
"""Of the rights on files, those that make sense for one that is no directory."""
SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_FILTER = 1
NEW_LISTENER, KILLABLE = 8, 32
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, CLEAR_ALL = 38, 47, 4

Order = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def ruleset(handled: dict[str, int], rules: list[tuple[str, int]]) -> int:
    """A descriptor of the rules: (path, rights at it and below)."""
    attributes = struct.pack("=QQQ", handled["files"], handled["network"], handled["scopes"])
    size = 8 if not handled["network"] else 16 if not handled["scopes"] else 24
    made = check(libc.syscall(CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for path, rights in rules:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= OF_FILES
            rule = struct.pack("=Qi", rights & handled["files"], fd)
            check(libc.syscall(ADD_RULE, made, PATH_BENEATH, rule, 0), f"landlock, {path}")
        finally:
            os.close(fd)
    return made


def become(uid: int | None, gid: int) -> None:
    """The user of the box, in the one group to which the way to its files is open."""
    if uid is not None:
        os.setgroups([gid])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    check(libc.prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0), "ambient capabilities")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "undumpable")


def enclose(rules: int, instructions: bytes, ask: bool) -> int | None:
    """From here on this process is inside; the filter's listener, where it has one."""
    check(libc.syscall(RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)
    code = ctypes.create_string_buffer(instructions)
    program = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(code))
    number = SECCOMP[os.uname().machine]
    for flags in (NEW_LISTENER | KILLABLE, NEW_LISTENER) if ask else (0,):
        made = libc.syscall(number, SET_FILTER, flags, program)
        if made >= 0 or ctypes.get_errno() != errno.EINVAL:
            break
    made = check(made, "seccomp")
    return made if ask else None


def start_init(order: Order, rules: int, parent: socket.socket) -> None:
    """In the child: close the walls around itself and become init."""
    os.setsid()  # a signal to the supervisor's group is none to init
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent's death signal")
    instructions = base64.b64decode(order["filter"])
    listener = enclose(rules, instructions, order["ask"])
    # To a supervisor that ended before it could send that signal, this fails.
    socket.send_fds(parent, [b"!"], [] if listener is None else [listener])
    os.execve(order["init"][0], order["init"], {})


def main() -> None:
    order = json.loads(sys.argv[1])
    rules = ruleset(order["handled"], order["rules"])
    become(order["uid"], order["gid"])
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    os.set_inheritable(order["report"], False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            start_init(order, rules, theirs)
        except OSError as error:
            sys.stderr.write(f"confine: {error.strerror}\n")
            sys.stderr.flush()
        finally:
            os._exit(1)
    theirs.close()
    os.close(rules)
    os.close(order["listening"])
    _, handed, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    os.write(order["report"], b'{"child-pid": %d}\n' % pid)
    os.close(order["report"])
    listener = handed[0] if handed else None
    memory = order["uid"] is not None
    Supervisor(pid, listener, own=order["own"], run=order["run"], memory=memory).serve()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"confine: {error.strerror}")
