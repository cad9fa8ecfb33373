"""Limits of sandboxes: which can be had here, by what, and what one sandbox gets."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from interpreter import disks
from interpreter.cgroup import Group
from interpreter.cgroups import Cgroups, hierarchies
from interpreter.disks import Disk
from interpreter.errors import LimitUnsupported, NotReady
from interpreter.family import look
from interpreter.launching import JOIN
from interpreter.limit_models import LEAST_MEMORY, LimitMechanisms, Limits
from interpreter.models import Isolation
from interpreter.pausing import freeze
from interpreter.settings import Settings

NAMES = {"memory_bytes": "memory", "cpus": "cpus", "pids": "pids", "disk_bytes": "disk"}
"""Fields of `Limits`, and what they are called among mechanisms."""
TRIALS = {
    "memory": Limits(memory_bytes=LEAST_MEMORY),
    "cpus": Limits(cpus=0.5),
    "pids": Limits(pids=8),
}
CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
_log = logging.getLogger(__name__)


class Enforcement:
    """What this service can enforce. `lacking` says of the rest why not."""

    def __init__(
        self,
        settings: Settings,
        mechanisms: LimitMechanisms,
        lacking: Mapping[str, str],
        cgroups: Cgroups,
    ) -> None:
        self.mechanisms = mechanisms
        self.lacking = dict(lacking)
        self._cgroups = cgroups
        self._settings = settings

    @classmethod
    async def probe(cls, settings: Settings, isolation: Isolation) -> Enforcement:
        """Try everything once."""
        record = settings.home / "cgroups.json"
        if isolation.tier == "none":
            why = "code that runs with the service's own rights could undo it"
            lacking = dict.fromkeys(LimitMechanisms.model_fields, why)
            return cls(settings, LimitMechanisms(), lacking, Cgroups(record))
        cgroups = Cgroups.claim(settings.runtime.name, record, hierarchies())
        found, lacking = await _try_groups(cgroups)
        if await _try_freezer(cgroups):
            found["pause"] = f"cgroup{cgroups.version('freezer')}"
        found["open_files"] = "rlimit"
        if found["pids"] is None and os.geteuid() == 0:  # else boxes share a uid, and its count
            found["pids"] = "rlimit"
        if why_no_disk := await asyncio.to_thread(disks.lacking):
            lacking["disk"] = why_no_disk
        else:
            found["disk"] = "image"
        enforcement = cls(settings, LimitMechanisms.model_validate(found), lacking, cgroups)
        enforcement._warn()
        return enforcement

    def describe(self, isolation: Isolation) -> Isolation:
        """The tier, completed by what limits there are in it, and why the others are not."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.lacking.items():
            if getattr(self.mechanisms, name) is None:
                reasons.setdefault(why, []).append(name)
        missing = [f"no limit on {', '.join(names)}: {why}" for why, names in reasons.items()]
        reason = "; ".join([isolation.reason, *missing])
        return isolation.model_copy(update={"reason": reason, "limits": self.mechanisms})

    def grant(self, asked: Limits) -> Limits:
        """What a new sandbox gets. Raises LimitUnsupported."""
        granted: dict[str, Any] = {
            field: self._grant(field, getattr(asked, field)) for field in NAMES
        }
        return Limits.model_construct(**granted)

    def check(self, limits: Limits) -> None:
        """Raises NotReady where a limit that a sandbox was made with cannot be kept any more."""
        for field, name in NAMES.items():
            if getattr(limits, field) is not None and not self._has(field):
                raise NotReady(
                    f"the sandbox was made with a limit, {field}, that cannot be enforced now: "
                    f"{self.lacking.get(name, 'nothing here does')}"
                )

    def group(self, number: int) -> Group:
        """The control group of a sandbox's box."""
        return self._cgroups.group(str(number))

    def disk(self, directory: Path, limits: Limits, uid: int | None) -> Disk | None:
        if limits.disk_bytes is None:
            return None
        return Disk(directory / "disk.img", directory / "disk", limits.disk_bytes, uid or 0)

    def rlimits(self, limits: Limits) -> dict[str, int]:
        """What init sets, on itself and on all it starts."""
        found = {"open_files": self._settings.open_files}
        if self.mechanisms.pids == "rlimit" and limits.pids is not None:
            found["processes"] = limits.pids + 1
        return found

    async def sweep(self, keep: Iterable[int]) -> None:
        """End and remove every group but those of sandboxes of these numbers."""
        await self._cgroups.sweep(map(str, keep))

    def close(self) -> None:
        self._cgroups.close()

    def _grant(self, field: str, asked: float | None) -> float | None:
        default: float | None = getattr(self._settings, f"default_{field}")
        most: float | None = getattr(self._settings, f"max_{field}")
        if asked is None:
            chosen = min((each for each in (default, most) if each), default=None)
            return chosen if self._has(field) else None
        if not self._has(field):
            raise LimitUnsupported(
                f"{field} cannot be enforced here, so leave it out: "
                f"{self.lacking.get(NAMES[field], 'nothing here does')}",
                limit=field,
            )
        if most and asked > most:
            raise LimitUnsupported(
                f"expected {field} of {most} at most, which is what this service allows, "
                f"got {asked}",
                limit=field,
                most=most,
            )
        return asked

    def _has(self, field: str) -> bool:
        return getattr(self.mechanisms, NAMES[field]) is not None

    def _warn(self) -> None:
        """What the operator has set himself, and in vain, he is told at start."""
        for field, name in NAMES.items():
            chosen = {f"default_{field}", f"max_{field}"} & self._settings.model_fields_set
            if chosen and not self._has(field):
                _log.warning("%s has no effect: %s", ", ".join(chosen), self.lacking[name])


async def _try_groups(cgroups: Cgroups) -> tuple[dict[str, Any], dict[str, str]]:
    """Which limits a control group enforces, and why not the others."""
    found: dict[str, Any] = {}
    lacking: dict[str, str] = {}
    for name, limits in TRIALS.items():
        version = cgroups.version(CONTROLLERS[name])
        found[name] = None
        if version is None:
            lacking[name] = cgroups.lacking[CONTROLLERS[name]]
            continue
        group = cgroups.group("trial")
        try:
            if group.exists:
                await group.remove()
            group.create(limits)
            await group.remove()
        except OSError as error:
            lacking[name] = f"its control group takes no limit: {error.strerror}"
        else:
            found[name] = f"cgroup{version}"
    return found, lacking


async def _try_freezer(cgroups: Cgroups) -> bool:
    """Whether a process that has joined a group can be stopped by it; else nobody is."""
    if cgroups.version("freezer") is None:
        return False
    group = cgroups.group("trial")
    try:
        if group.exists:
            await group.remove()
        group.create(Limits())
        return await _freeze_one(group)
    except (OSError, NotReady) as error:
        why = error.strerror if isinstance(error, OSError) else error.message
        cgroups.renounce("freezer", f"a process cannot be stopped by its control group: {why}")
        return False
    finally:
        await group.remove()


async def _freeze_one(group: Group) -> bool:
    script = "echo joined; read -r _"
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", JOIN, "join", *group.joins, "--", "/bin/sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={},
    )
    assert process.stdout and group.freezer
    try:
        if not await process.stdout.readline():
            raise NotReady("it cannot join its group")
        await freeze(group.freezer, lambda: list(filter(None, [look(process.pid)])))
        return True
    finally:
        group.freezer.thaw()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
