"""The filter as a program: its numbers, and what it answers on each architecture."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from interpreter.seccomp import ARCHITECTURES, CALLS, Instruction, assemble, program

ALLOWED = 0x7FFF0000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(instructions: list[Instruction], audit: int, number: int, *arguments: int) -> int:
    """What the kernel's machine would return; 0 for allowed, else the error number."""
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
            case 0x06:
                return 0 if operand == ALLOWED else operand & 0xFFFF


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_numbers_are_the_kernels(name: str) -> None:
    if not HEADERS[name].exists():
        pytest.skip(f"this machine has no {HEADERS[name]}: apt-get install linux-libc-dev")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[name].read_text())
    known = {call: int(number) for call, number in reversed(found)}
    column = ARCHITECTURES[name].column
    for call, numbers in CALLS.items():
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
