"""Which walls can be built here: tried once, with the real profile."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from interpreter import landlock, seccomp
from interpreter.box import Box
from interpreter.errors import NotReady
from interpreter.models import Isolation
from interpreter.settings import Settings
from interpreter.walls import GUEST, KERNEL_GUEST, BoxPlan, Mount, Tier, write_etc

REMEDIES = {
    "No permissions to create new namespace": "the kernel or a container forbids user namespaces: "
    "run the service outside of a container, or give that container --security-opt "
    "seccomp=unconfined --security-opt apparmor=unconfined",
    "setting up uid map: Permission denied": "AppArmor restricts user namespaces: give bwrap a "
    "profile with `userns,`, or set kernel.apparmor_restrict_unprivileged_userns=0",
    "Failed RTM_NEWADDR": "AppArmor restricts user namespaces: give bwrap a profile with "
    "`userns,`, or set kernel.apparmor_restrict_unprivileged_userns=0",
    "unshare: Operation not permitted": "root has no CAP_SYS_ADMIN here: run the service outside "
    "of a container, give that container --privileged, or run the service as another user",
    "Can't mount proc": "the container masks parts of /proc: give it --security-opt "
    "systempaths=unconfined, or run the service outside of it",
    "Unknown option": "bubblewrap 0.8 or newer is needed",
    "PR_SET_SECCOMP": "the kernel has no filters on system calls: it needs CONFIG_SECCOMP_FILTER",
    "nesting depth": "user namespaces are used up: raise /proc/sys/user/max_user_namespaces",
}
CONNECTS = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
try:
    socket.create_connection(server.getsockname(), timeout=5)
except OSError as error:
    sys.exit(error.errno)
"""
"""A program of a box that connects to itself, and ends with the reason if it cannot."""


def base_mounts() -> list[Mount]:
    """The interpreter init runs with, where it does not lie below /usr."""
    prefix = os.path.realpath(sys.base_prefix)
    return [] if f"{prefix}/".startswith("/usr/") else [Mount(prefix, prefix)]


async def probe(settings: Settings) -> Isolation:
    """The strongest tier that works. NotReady: the operator asked for one that does not."""
    least, asked = settings.isolation_minimum, settings.isolation
    if asked != "auto" and STRENGTH.index(asked) > STRENGTH.index(least):
        raise NotReady(f"--isolation {asked} is weaker than --isolation-minimum {least}: drop one")
    tiers = STRENGTH[: STRENGTH.index(least) + 1] if asked == "auto" else (asked,)
    failed: list[str] = []
    for tier in tiers:
        try:
            found = await TRIALS[tier](settings)
        except NotReady as error:
            failed.append(f"no {tier}: {_with_remedy(error.message)}")
        else:
            reason = "; ".join([found.reason, *failed])
            return found.model_copy(update={"reason": reason})
    wanted = f"--isolation {asked}"
    if asked == "auto":
        wanted = f"--isolation-minimum {least}"
    raise NotReady(f"{wanted}: no box can be built here: {'; '.join(failed)}")


async def _try_bwrap(settings: Settings) -> Isolation:
    if not sys.platform.startswith("linux"):
        raise NotReady(f"bubblewrap needs Linux, and this is {sys.platform}")
    if shutil.which("bwrap") is None:
        raise NotReady("bubblewrap is not installed: `apt-get install bubblewrap`")
    with _trial_plan(settings) as plan:
        await (await Box.start(plan)).destroy()
    reason = "bubblewrap: namespaces of its own, a read-only system, no capability, "
    return Isolation(tier="bwrap", reason=reason + _filter())


async def _try_process(settings: Settings) -> Isolation:
    uid, gid = box_uid(settings, 0), box_gid(settings)
    if why := landlock.lacking(uid):
        raise NotReady(why)
    with _trial_plan(settings, tier="process", gid=gid) as plan:
        if uid is not None:
            landlock.open_ways(plan, plan.files)
            landlock.check_ways([*_needed(settings), plan.run], uid, gid)
        await (await Box.start(plan)).destroy()
        why = await _cannot_connect(replace(plan, connects=True))
    return Isolation(tier="process", reason=_told(uid, why), connects=why is None)


async def _cannot_connect(plan: BoxPlan) -> str | None:
    """Why code that is asked about its connections cannot be given any."""
    try:
        box = await Box.start(plan)
    except NotReady as error:
        return error.message
    try:
        argv = [box.python, "-I", "-S", "-B", "-c", CONNECTS]
        process = await box.spawn(argv, env={}, cwd=box.paths.home)
        code = await process.wait()
        await process.release()
    finally:
        await box.destroy()
    if code == 0:
        return None
    why = os.strerror(code) if code > 0 else f"ended by signal {-code}"
    return f"its supervisor cannot connect for it ({why}): it needs the right to trace its children"


def _needed(settings: Settings) -> list[str | Path]:
    """What of this machine a box comes to by its real path."""
    needed: list[str | Path] = [
        *(mount.source for mount in base_mounts()),
        GUEST,
        KERNEL_GUEST,
        settings.home,
    ]
    python = settings.python_home.absolute()
    if not python.is_relative_to(settings.home.absolute()):
        needed += [python.resolve(), (python / "bin" / "python").resolve()]
    return needed


def _told(uid: int | None, why_no_connections: str | None) -> str:
    """What this tier is and, in so many words, what it is not."""
    told = [
        "Landlock: files, signals and connections of its own, a filter on system calls, no "
        "capability" + ("" if uid is None else ", a user of its own"),
        "not its own here: the list of processes with their command lines, names and sizes of "
        "files, ports (servers are reachable as any of this machine's), /workspace; no UDP",
    ]
    if uid is None:
        told.append(
            "code runs as the service's user, and can change modes and times of that user's files"
        )
    if why_no_connections:
        told.append(f"code cannot connect at all, not to itself either: {why_no_connections}")
    return "; ".join(told)


async def _try_none(settings: Settings) -> Isolation:
    why = "chosen by the operator: " if settings.isolation == "none" else ""
    return Isolation(tier="none", reason=f"{why}code runs with the service's own rights")


STRENGTH: tuple[Tier, ...] = ("bwrap", "process", "none")
TRIALS: Mapping[Tier, Callable[[Settings], Awaitable[Isolation]]] = MappingProxyType(
    {"bwrap": _try_bwrap, "process": _try_process, "none": _try_none}
)


@contextmanager
def _trial_plan(settings: Settings, tier: Tier = "bwrap", gid: int = 0) -> Iterator[BoxPlan]:
    with tempfile.TemporaryDirectory(prefix="cellshell-probe-") as directory:
        files, run = Path(directory) / "f", Path(directory) / "r"
        run.mkdir()
        write_etc(files / "etc", "")
        mounts = base_mounts()
        yield BoxPlan(
            files=files, run=run, uid=box_uid(settings, 0), gid=gid, mounts=mounts, tier=tier
        )


def _filter() -> str:
    if seccomp.here():
        return "a filter on system calls"
    known = " and ".join(seccomp.ARCHITECTURES)
    return f"no filter on system calls (there is one for {known}; this is {platform.machine()})"


def box_uid(settings: Settings, number: int) -> int | None:
    """A uid of its own for each sandbox, where the service may choose.

    Root in a rootless container has few uids: there all boxes have the service's own.
    """
    uid = settings.uid_base + number
    return uid if os.geteuid() == 0 and _is_mapped(uid) else None


def box_gid(settings: Settings) -> int:
    """The group that all boxes are in, where each has a uid of its own; 0 for none."""
    return settings.uid_base if box_uid(settings, 0) is not None else 0


def _is_mapped(uid: int) -> bool:
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return True
    return False


def _with_remedy(message: str) -> str:
    for symptom, remedy in REMEDIES.items():
        if symptom in message:
            return f"{message} ({remedy})"
    return message
