"""Which walls can be built here: tried once, with the real profile."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from interpreter import seccomp
from interpreter.box import Box
from interpreter.errors import NotReady
from interpreter.models import Isolation
from interpreter.settings import Settings
from interpreter.walls import BoxPlan, Mount, write_etc

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


def base_mounts() -> list[Mount]:
    """The interpreter init runs with, where it does not lie below /usr."""
    prefix = os.path.realpath(sys.base_prefix)
    return [] if f"{prefix}/".startswith("/usr/") else [Mount(prefix, prefix)]


async def probe(settings: Settings) -> Isolation:
    """The strongest tier that works. NotReady: the operator asked for one that does not."""
    if settings.isolation == "none":
        return Isolation(
            tier="none", reason="chosen by the operator: code runs with the service's own rights"
        )
    reason = await _bwrap_fails(settings)
    if reason is None:
        return Isolation(
            tier="bwrap",
            reason="bubblewrap: namespaces of its own, a read-only system, no capability, "
            + _filter(),
        )
    if settings.isolation == "bwrap":
        raise NotReady(f"--isolation bwrap: no box can be built here: {reason}")
    return Isolation(
        tier="none", reason=f"code runs with the service's own rights, since no box works: {reason}"
    )


async def _bwrap_fails(settings: Settings) -> str | None:
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: `apt-get install bubblewrap`"
    with tempfile.TemporaryDirectory(prefix="cellshell-probe-") as directory:
        files, run = Path(directory) / "f", Path(directory) / "r"
        run.mkdir()
        write_etc(files / "etc", "")
        plan = BoxPlan(files=files, run=run, uid=box_uid(settings, 0), mounts=base_mounts())
        try:
            box = await Box.start(plan)
            await box.destroy()
        except NotReady as error:
            return _with_remedy(error.message)
    return None


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
