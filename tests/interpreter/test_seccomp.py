"""The filter as a program: its numbers, and what it answers on each architecture."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from interpreter.seccomp import (
    ARCHITECTURES,
    CALLS,
    SHARED_CALLS,
    Instruction,
    assemble,
    program,
    shared,
)

ALLOWED = 0x7FFF0000
ASK = 0x7FC00000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(instructions: list[Instruction], audit: int, number: int, *arguments: int) -> int:
    """What the kernel's machine would return; 0: allowed, -1: ask, else the error number."""
    words = {0: number, 4: audit}
    words |= {16 + 8 * n: value & 0xFFFFFFFF for n, value in enumerate(arguments)}
    at, held = 0, 0
    while True:
        code, operand, then, other = instructions[at]
        at += 1
        match code:
            case 0x20:
                held = words[operand]
            case 0x15:
                at += then if held == operand else other
            case 0x35:
                at += then if held >= operand else other
            case 0x45:
                at += then if held & operand else other
            case 0x54:
                held &= operand
            case 0x06 if operand == ASK:
                return -1
            case 0x06:
                return 0 if operand == ALLOWED else operand & 0xFFFF


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_numbers_are_the_kernels(name: str) -> None:
    if not HEADERS[name].exists():
        pytest.skip(f"this machine has no {HEADERS[name]}: apt-get install linux-libc-dev")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[name].read_text())
    known = {call: int(number) for call, number in reversed(found)}
    column = ARCHITECTURES[name].column
    for call, numbers in (CALLS | SHARED_CALLS).items():
        assert numbers[column] == known.get(call), call


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("mount", (), errno.EPERM),
        ("syslog", (), errno.EPERM),
        ("clone3", (), errno.ENOSYS),
        ("io_uring_setup", (), errno.ENOSYS),
        ("clone", (0x11,), 0),  # fork
        ("clone", (0x3D0F00,), 0),  # a thread
        ("clone", (0x10000011,), errno.EPERM),  # CLONE_NEWUSER
        ("clone", (0x20011,), errno.EPERM),  # CLONE_NEWNS
        ("unshare", (0x400,), 0),  # CLONE_FILES
        ("unshare", (0x80,), errno.EPERM),  # CLONE_NEWTIME
        ("unshare", (0x40000000,), errno.EPERM),  # CLONE_NEWNET
        ("ioctl", (0, 0x5413), 0),  # TIOCGWINSZ
        ("ioctl", (0, 0x5412), errno.EPERM),  # TIOCSTI
        ("ioctl", (0, 0x541C), errno.EPERM),
        ("ioctl", (0, 0x5423), errno.EPERM),
        ("ioctl", (0, 0x1_0000_5412), errno.EPERM),  # the kernel takes the lower half
        ("socket", (1, 1, 0), 0),
        ("socket", (2, 1, 6), 0),
        ("socket", (10, 2, 0), 0),
        ("socket", (16, 3, 0), 0),
        ("socket", (16, 3, 4), 0),
        ("socket", (16, 3, 12), errno.EPROTONOSUPPORT),  # NETLINK_NETFILTER
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),  # AF_VSOCK
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),  # AF_ALG
        ("socketpair", (1, 1, 0), 0),
        ("socketpair", (30, 1, 0), errno.EAFNOSUPPORT),  # AF_TIPC
    ],
)
def test_answers(name: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    architecture = ARCHITECTURES[name]
    number = CALLS[call][architecture.column]
    assert number is not None
    assert answer(program(architecture), architecture.audit, number, *arguments) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("mount", (), errno.EPERM),
        ("clone", (0x10000011,), errno.EPERM),
        ("clone", (0x11,), 0),
        ("connect", (3, 0, 16), -1),
        ("socket", (1, 1, 0), 0),
        ("socket", (1, 0x80801, 0), 0),  # SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK
        ("socket", (1, 5, 0), 0),
        ("socket", (1, 2, 0), errno.EACCES),
        ("socket", (2, 1, 6), 0),
        ("socket", (10, 0x80001, 0), 0),
        ("socket", (2, 1, 262), errno.EPROTONOSUPPORT),  # MPTCP
        ("socket", (10, 2, 0), errno.EACCES),
        ("socket", (2, 5, 0), errno.EACCES),  # SCTP
        ("socket", (2, 6, 0), errno.EACCES),  # DCCP
        ("socket", (16, 3, 0), 0),
        ("socket", (16, 3, 12), errno.EPROTONOSUPPORT),
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socketpair", (1, 1, 0), 0),
        ("socketpair", (1, 2, 0), errno.EACCES),
        ("sendto", (3, 0, 1, 0x4000), 0),
        ("sendto", (3, 0, 1, 0x20000000), errno.EPERM),
        ("sendmsg", (3, 0, 0x20000000), errno.EPERM),
        ("sendmmsg", (3, 0, 1, 0x20004000), errno.EPERM),
        ("shmget", (), errno.ENOSYS),
        ("mq_open", (), errno.ENOSYS),
        ("prlimit64", (0, 7), 0),
        ("prlimit64", (7, 7), errno.EPERM),
        ("sched_setaffinity", (7,), errno.EPERM),
        ("sched_setscheduler", (7, 0), 0),
        ("sched_setscheduler", (7, 5), errno.EPERM),
        ("sched_setscheduler", (0, 5), 0),
        ("setpriority", (0, 0), 0),
        ("setpriority", (0, 7), errno.EPERM),
        ("setpriority", (2, 0), errno.EPERM),  # PRIO_USER
        ("ioprio_set", (1, 0), 0),
        ("ioprio_set", (3, 0), errno.EPERM),
        ("ioctl", (0, 0x5413), 0),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 0x5441), -1),  # TIOCGPTPEER
    ],
)
def test_answers_on_a_shared_machine(
    name: str, call: str, arguments: tuple[int, ...], expected: int
) -> None:
    architecture = ARCHITECTURES[name]
    number = (CALLS | SHARED_CALLS)[call][architecture.column]
    assert number is not None
    found = answer(shared(architecture, ask=True), architecture.audit, number, *arguments)
    assert found == expected
    found = answer(shared(architecture, ask=False), architecture.audit, number, *arguments)
    assert found == (errno.EACCES if expected == -1 else expected)
    assert answer(shared(architecture, ask=True), 0x40000003, 20) == errno.ENOSYS  # i386


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whatever_is_not_named_is_allowed(name: str) -> None:
    architecture = ARCHITECTURES[name]
    named = {numbers[architecture.column] for numbers in CALLS.values()}
    for number in range(500):
        refused = answer(program(architecture), architecture.audit, number, 0, 0, 0) != 0
        assert not refused or number in named


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_conventions_have_no_calls(name: str) -> None:
    architecture = ARCHITECTURES[name]
    assert answer(program(architecture), 0x40000003, 20) == errno.ENOSYS  # i386
    if architecture.mixed:
        assert answer(program(architecture), architecture.audit, 0x40000000 + 39) == errno.ENOSYS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_what_a_kernel_takes(name: str) -> None:
    words = program(ARCHITECTURES[name])
    assert len(assemble(words)) == 8 * len(words) <= 8 * 4096
    steps = list(enumerate(words))[:-1]  # the last one returns
    assert all(n + 1 + max(each.then, each.other) < len(words) for n, each in steps)
    assert max(max(each.then, each.other) for each in words) < 256
