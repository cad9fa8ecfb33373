"""The system calls that code in a box may not make, as a seccomp filter.

The filter is classic BPF, assembled here for the architecture it will run on: what it takes is a
few instructions, and a library for them is not there on every machine. Whatever is not named is
allowed. A refused call fails with an error number and kills nothing, so that programs which try
something (io_uring, clone3) and can do without it go on.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import NamedTuple

_LOAD = 0x20  # a word of seccomp_data
_EQUAL, _ANY_BIT, _AT_LEAST = 0x15, 0x45, 0x35
_RETURN = 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_AND = 0x54
_ALLOW, _FAIL, _ASK = 0x7FFF0000, 0x00050000, 0x7FC00000

_X32 = 0x40000000
_NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag."""
_THREADS = 0x7E020000
"""The same for clone(2), where the lowest byte is a signal."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: not AF_VSOCK, which no network namespace covers."""
_UNIX, _NETLINK = 1, 16
_INET = (2, 10)
_PROTOCOLS = (0, 4, 15)
"""Of AF_NETLINK, what programs look at interfaces, sockets and devices with."""
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)
"""TIOCSTI and TIOCLINUX type for others; TIOCSETD loads line disciplines."""
_OTHER_END = 0x5441
"""TIOCGPTPEER: the follower of a pseudo terminal, without its name."""


class Architecture(NamedTuple):
    audit: int
    """What the kernel calls it in AUDIT_ARCH_*."""
    column: int
    """Which number of `CALLS` is its."""
    mixed: bool = False
    """Whether another calling convention (x32) shares its number space."""


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 0, mixed=True),
    "aarch64": Architecture(0xC00000B7, 1),
}

CALLS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51),
    "clone": (56, 220), "clone3": (435, 435), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425),
    "ioctl": (16, 29), "ioperm": (173, None), "iopl": (172, None), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "modify_ldt": (154, None), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "setns": (308, 268), "socket": (41, 198),
    "socketpair": (53, 199), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
}  # fmt: skip
"""Number on x86_64 and on aarch64; none where there is no such call."""

SHARED_CALLS: dict[str, tuple[int, int]] = {
    "connect": (42, 203), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "msgctl": (71, 187), "msgget": (68, 186), "msgrcv": (70, 188), "msgsnd": (69, 189),
    "prlimit64": (302, 261), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119), "semctl": (66, 191), "semget": (64, 190),
    "semop": (65, 193), "semtimedop": (220, 192), "sendmmsg": (307, 269), "sendmsg": (46, 211),
    "sendto": (44, 206), "setpriority": (141, 140), "shmat": (30, 196), "shmctl": (31, 195),
    "shmget": (29, 194),
}  # fmt: skip
"""What namespaces make harmless, and nothing else does in a box that has none of its own."""
_SYSTEM_V = tuple(name for name in SHARED_CALLS if name[:3] in ("mq_", "msg", "sem", "shm"))
"""Message queues, semaphores and memory with one name space for the whole machine."""
_OF_A_PROCESS = (
    "migrate_pages", "move_pages", "prlimit64", "sched_setaffinity", "sched_setattr",
)  # fmt: skip
"""Calls on a process, which may be the caller itself alone: 0."""
_OF_PROCESSES = {"ioprio_set": 1, "setpriority": 0}
"""The same after another argument, which means one process, and not a group or a user."""
_STREAM, _SEQUENCED = 1, 5
_TYPES = 0xF
"""The bits of a socket's type that are no flags."""
_TCP = (0, 6)
_FAST_OPEN = 0x20000000
"""MSG_FASTOPEN, by which a message opens a connection."""

_UNKNOWN = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
"""Answered as by a kernel that has none: who asks for them knows another way."""
_LOOKED_INTO = ("clone", "unshare", "ioctl", "socket", "socketpair")


class Instruction(NamedTuple):
    code: int
    operand: int
    then: int = 0
    """Instructions to skip when a comparison holds."""
    other: int = 0


def here() -> Architecture | None:
    """The architecture of this machine, None where the filter knows none of its numbers."""
    return ARCHITECTURES.get(platform.machine())


def shared(architecture: Architecture, *, ask: bool) -> list[Instruction]:
    """The filter of a box that shares the machine's network and processes.

    Sockets are of streams alone, so that `connect` is their only way to anybody. With `ask` it is
    answered by a listener of the filter, and else refused; and so is the opening of a terminal's
    other end, whose name is closed to the box.
    """
    answer = [Instruction(_RETURN, _ASK)] if ask else _fail(errno.EACCES)
    other_end = Instruction(_EQUAL, _OTHER_END, other=1)
    checks = [
        _check(architecture, "connect", answer),
        _check(architecture, "ioctl", [_argument(1), other_end, *answer, *_terminal()]),
        *(_check(architecture, name, _fail(errno.ENOSYS)) for name in _SYSTEM_V),
        *(_check(architecture, name, _exactly(0)) for name in _OF_A_PROCESS),
        *(_check(architecture, name, _exactly(one, 0)) for name, one in _OF_PROCESSES.items()),
        # A thread's usual policy is set by its number, by ZeroMQ for one.
        _check(architecture, "sched_setscheduler", [*_usual(1), *_exactly(0)]),
        _check(architecture, "sendto", _without_bits(_FAST_OPEN, 3)),
        _check(architecture, "sendmsg", _without_bits(_FAST_OPEN, 2)),
        _check(architecture, "sendmmsg", _without_bits(_FAST_OPEN, 3)),
        _check(architecture, "socket", _streams()),
        _check(architecture, "socketpair", _streams()),
    ]
    entry = _entry(architecture)
    narrower = [each for check in checks for each in check]
    return [*entry, *narrower, *program(architecture)[len(entry) :]]


def descriptor(architecture: Architecture) -> int:
    """A file that holds the filter, for `bwrap --seccomp`; the caller's to close."""
    fd = os.memfd_create("seccomp")
    try:
        os.write(fd, assemble(program(architecture)))
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def assemble(instructions: Sequence[Instruction]) -> bytes:
    return b"".join(
        struct.pack("=HBBI", each.code, each.then, each.other, each.operand)
        for each in instructions
    )


def program(architecture: Architecture) -> list[Instruction]:
    refused = [name for name in CALLS if name not in (*_UNKNOWN, *_LOOKED_INTO)]
    checks = [
        *(_check(architecture, name, _fail(errno.ENOSYS)) for name in _UNKNOWN),
        *(_check(architecture, name, _fail(errno.EPERM)) for name in refused),
        _check(architecture, "clone", _without_bits(_THREADS)),
        _check(architecture, "unshare", _without_bits(_NAMESPACES)),
        _check(architecture, "ioctl", _terminal()),
        _check(architecture, "socket", _family()),
        _check(architecture, "socketpair", _family()),
    ]
    return [*_entry(architecture), *(each for check in checks for each in check), _allow()]


def _entry(architecture: Architecture) -> list[Instruction]:
    """Calls of another convention (i386, x32) have other numbers: there are none here."""
    words = [
        Instruction(_LOAD, _ARCHITECTURE),
        Instruction(_EQUAL, architecture.audit, then=1),
        *_fail(errno.ENOSYS),
        Instruction(_LOAD, _NUMBER),
    ]
    if architecture.mixed:
        words += [Instruction(_AT_LEAST, _X32, other=1), *_fail(errno.ENOSYS)]
    return words


def _check(architecture: Architecture, name: str, block: list[Instruction]) -> list[Instruction]:
    """`block`, which ends with a return, for one call."""
    number = (CALLS.get(name) or SHARED_CALLS[name])[architecture.column]
    if number is None:
        return []
    return [Instruction(_EQUAL, number, other=len(block)), *block]


def _without_bits(mask: int, argument: int = 0) -> list[Instruction]:
    return [
        _argument(argument),
        Instruction(_ANY_BIT, mask, other=1),
        *_fail(errno.EPERM),
        _allow(),
    ]


def _terminal() -> list[Instruction]:
    return [_argument(1), *_one_of(_TERMINAL_REQUESTS), _allow(), *_fail(errno.EPERM)]


def _exactly(*values: int) -> list[Instruction]:
    """The first arguments are these."""
    found: list[Instruction] = []
    for at, value in enumerate(values):
        found += [_argument(at), *_one_of((value,)), *_fail(errno.EPERM)]
    return [*found, _allow()]


def _usual(argument: int) -> list[Instruction]:
    """Goes on unless the argument is 0."""
    return [_argument(argument), Instruction(_EQUAL, 0, other=1), _allow()]


def _family() -> list[Instruction]:
    """The protocol is looked at for AF_NETLINK alone, which is tested first."""
    known = [family for family in _FAMILIES if family != _NETLINK]
    return [
        *(_argument(0), *_netlink()),
        *(*_one_of(known), *_fail(errno.EAFNOSUPPORT), _allow()),
    ]


def _netlink() -> list[Instruction]:
    block = [*(_argument(2), *_one_of(_PROTOCOLS)), *(*_fail(errno.EPROTONOSUPPORT), _allow())]
    return [Instruction(_EQUAL, _NETLINK, other=len(block)), *block]


def _streams() -> list[Instruction]:
    """Sockets that reach nobody before they are connected."""
    unix = [*_type(_STREAM, _SEQUENCED), _allow()]
    return [
        *(_argument(0), *_netlink()),
        *(Instruction(_EQUAL, _UNIX, other=len(unix)), *unix),
        *(*_one_of(_INET), *_fail(errno.EAFNOSUPPORT), *_type(_STREAM)),
        *(_argument(2), *_one_of(_TCP), *_fail(errno.EPROTONOSUPPORT), _allow()),
    ]


def _type(*types: int) -> list[Instruction]:
    return [_argument(1), Instruction(_AND, _TYPES), *_one_of(types), *_fail(errno.EACCES)]


def _one_of(values: Sequence[int]) -> list[Instruction]:
    """Skips one instruction when the word is one of `values`."""
    last = len(values) - 1
    return [Instruction(_EQUAL, value, then=last - n + 1) for n, value in enumerate(values)]


def _argument(index: int) -> Instruction:
    """The lower half of an argument, which is all that the kernel takes of these."""
    return Instruction(_LOAD, _ARGUMENTS + 8 * index)


def _fail(number: int) -> list[Instruction]:
    return [Instruction(_RETURN, _FAIL | number)]


def _allow() -> Instruction:
    return Instruction(_RETURN, _ALLOW)
