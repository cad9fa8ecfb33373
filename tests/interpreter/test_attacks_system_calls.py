"""System calls that lead out of a box, or into parts of the kernel that no program here needs."""

from __future__ import annotations

import asyncio
import errno
import json
import platform

import pytest
from asking import Python, Shell

from interpreter.models import CreateContext
from interpreter.sandboxes import Sandbox
from interpreter.seccomp import CALLS, here
from interpreter.sessions import Session

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(here() is None, reason=f"there is no filter for {platform.machine()}"),
]

TRY = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(*map(ctypes.c_long, (number, *arguments, *[0] * (6 - len(arguments)))))
    return ctypes.get_errno()
print(json.dumps([call(*each) for each in {calls}]))
"""
REFUSED = {
    "acct": (0,),
    "add_key": (0,),
    "bpf": (5, 0, 0),
    "chroot": (0,),
    "fanotify_init": (0, 0),
    "fsopen": (0, 0),
    "kcmp": (1, 1, 0),
    "kexec_load": (0,),
    "keyctl": (0, -3, 1),
    "mount": (0,),
    "move_mount": (-100, 0, -100, 0),
    "open_by_handle_at": (-100, 0, 0),
    "open_tree": (-100, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "pidfd_getfd": (-1, 0, 0),
    "pivot_root": (0, 0),
    "reboot": (0, 0, 0),
    "request_key": (0,),
    "setns": (-1, 0),
    "syslog": (3, 0, 0),
    "umount2": (0, 0),
    "userfaultfd": (1,),
}
MISSING = {"clone3": (0, 0), "io_uring_setup": (1, 0)}


def number_of(call: str) -> int:
    architecture = here()
    assert architecture is not None
    number = CALLS[call][architecture.column]
    assert number is not None
    return number


async def errors(python: Python, *calls: tuple[int, ...]) -> list[str]:
    """What each of the calls failed with; the empty string when it did not."""
    result = await python(TRY.format(calls=json.dumps(calls)))
    return [errno.errorcode[number] if number else "" for number in json.loads(result.stdout)]


async def test_calls_that_are_refused(python: Python) -> None:
    """Outside of a box, most of these arguments fail otherwise: EFAULT, EBADF, EINVAL."""
    calls = [(number_of(name), *arguments) for name, arguments in REFUSED.items()]
    answers = dict(zip(REFUSED, await errors(python, *calls), strict=True))
    assert answers == dict.fromkeys(REFUSED, "EPERM")


async def test_calls_that_are_not_there(python: Python) -> None:
    calls = [(number_of(name), *arguments) for name, arguments in MISSING.items()]
    assert await errors(python, *calls) == ["ENOSYS"] * len(MISSING)


@pytest.mark.parametrize("flag", [0x80, 0x20000, *(1 << bit for bit in range(25, 31))])
async def test_no_namespace_is_made(python: Python, flag: int) -> None:
    """By unshare nor, where there is room for the flag, by clone."""
    calls = [(number_of("unshare"), flag)]
    calls += [(number_of("clone"), flag | 17)] if flag > 0xFF else []
    assert await errors(python, *calls) == ["EPERM"] * len(calls)


async def test_families_of_sockets(python: Python) -> None:
    socket = number_of("socket")
    refused = [(socket, family, 1, 0) for family in (17, 30, 38, 40, 44)]
    assert await errors(python, *refused) == ["EAFNOSUPPORT"] * len(refused)
    assert await errors(python, (socket, 16, 3, 12)) == ["EPROTONOSUPPORT"]
    used = [(socket, 1, 1, 0), (socket, 2, 1, 0), (socket, 10, 2, 0), (socket, 16, 3, 0)]
    assert await errors(python, *used) == [""] * len(used)


async def test_nothing_is_typed_into_a_terminal(python: Python) -> None:
    result = await python(
        "import fcntl, os, pty\n"
        "master, slave = pty.openpty()\n"
        "for request in (0x5412, 0x541C, 0x5423):\n"
        "    try:\n        fcntl.ioctl(slave, request, b'x   ')\n        print('typed')\n"
        "    except OSError as error:\n        print(error.errno)\n"
        "print(os.get_terminal_size(slave).lines)"
    )
    assert result.stdout.split() == ["1", "1", "1", "0"], result


async def test_everything_in_a_box_has_the_filter(
    sandbox: Sandbox, shell: Shell, python: Python
) -> None:
    """Init, shells, what they start, kernels, and helper programs of ours."""
    await python("1")
    modes = await shell("grep -h ^Seccomp: /proc/[0-9]*/status | sort -u | tr -d '[:space:]'")
    assert modes.stdout == "Seccomp:2"
    rights = await shell("grep -h ^NoNewPrivs: /proc/[0-9]*/status | sort -u | tr -d '[:space:]'")
    assert rights.stdout == "NoNewPrivs:1"
    assert "a filter on system calls" in sandbox.info().isolation.reason


LOOKOUT = """
import glob, pathlib
seen, end = set(), pathlib.Path("/tmp/enough")
while not end.exists():
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            status = dict(line.split(":\\t", 1) for line in open(path).read().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue
        seen.add((status["Seccomp"], status["NoNewPrivs"], int(status["CapBnd"], 16)))
seen
"""


async def test_nobody_sees_a_kernel_that_has_no_filter_yet(
    session: Session, shell: Shell, python: Python
) -> None:
    """Those that come from outside, forked, have it when they come."""
    lookout = asyncio.ensure_future(python(LOOKOUT))
    for _ in range(8):
        context = await session.create_context(CreateContext(language="python"))
        await session.delete_context(context.id)
    await shell("touch /tmp/enough")
    assert (await lookout).text == "{('2', '1', 0)}"


async def test_what_programs_need_is_there(python: Python, shell: Shell) -> None:
    result = await python(
        "import concurrent.futures as f, multiprocessing as m, subprocess\n"
        "with m.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "with f.ThreadPoolExecutor(2) as pool: print(list(pool.map(abs, [-3])))\n"
        "print(subprocess.run(['echo', 'four'], capture_output=True, text=True).stdout.strip())\n"
        "import numpy; print(int((numpy.ones((200, 200)) @ numpy.ones((200, 200)))[0, 0]))"
    )
    assert result.stdout.split("\n") == ["[1, 2]", "[3]", "four", "200", ""], result
    traced = await shell(
        "command -v strace >/dev/null || exit 0; strace -o /tmp/t true && wc -l /tmp/t"
    )
    assert traced.exit_code == 0, traced
