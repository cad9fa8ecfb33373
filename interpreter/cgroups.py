"""Control groups of the service: a directory of its own, with one group in it for each box.

It lies below the group that the service runs in. Version 2 wants no process where children are
limited, so there the service moves itself beside it, into `service`. Nothing is written outside of
that group, and a group that others run in too is left as it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from interpreter.cgroup import Group, Place

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "freezer")
ALWAYS = frozenset({"cpuacct", "freezer"})
"""What every group of version 2 has, whatever controllers there are."""
SERVICE = "service"
_log = logging.getLogger(__name__)


class Hierarchy(NamedTuple):
    """A mounted tree of groups, and where in it this process is."""

    version: int
    controllers: frozenset[str]
    own: Path


class Refused(Exception):
    """Why a hierarchy cannot be used, in a sentence."""


class Cgroups:
    """Ours. `lacking` tells of each controller that cannot be used why not."""

    def __init__(self, record: Path) -> None:
        """`record` is a file that tells the next service where our groups are."""
        self.lacking: dict[str, str] = {}
        self._record = record
        self._places: dict[str, Place] = {}
        self._left: Path | None = None

    @classmethod
    def claim(cls, name: str, record: Path, found: Iterable[Hierarchy]) -> Cgroups:
        """Make our directory, called `name`, in every hierarchy where that is possible."""
        groups = cls(record)
        for hierarchy in sorted(found, key=_turn):
            offered = hierarchy.controllers - groups._places.keys()
            wanted = [c for c in CONTROLLERS if c in offered]
            if hierarchy.version == 2 and set(wanted) <= ALWAYS:
                wanted = [c for c in wanted if c == "freezer"]  # no box joins it: no time to count
            if wanted:
                groups._claim(hierarchy, name, wanted)
        for controller in CONTROLLERS:
            if controller not in groups._places:
                groups.lacking.setdefault(controller, "the kernel offers no such control group")
        if groups._places:
            groups._remember([*groups._recorded(), groups._places])
        return groups

    def _claim(self, hierarchy: Hierarchy, name: str, wanted: list[str]) -> None:
        try:
            place = self._make(hierarchy, name, wanted)
        except (OSError, Refused) as error:
            self.lacking |= dict.fromkeys(wanted, _why(hierarchy, error))
            if hierarchy.version == 2 and wanted != ["freezer"]:
                self._claim(hierarchy, name, ["freezer"])
        else:
            self._places |= dict.fromkeys(wanted, place)

    def renounce(self, controller: str, why: str) -> None:
        """It turned out to be of no use."""
        self._places.pop(controller, None)
        self.lacking[controller] = why

    def version(self, controller: str) -> int | None:
        place = self._places.get(controller)
        return place.version if place else None

    def group(self, name: str) -> Group:
        """Of the box called `name`: where an earlier service has left it, or where it will be."""
        for places in self._recorded():
            group = _group(places, name)
            if group.exists:
                return group
        return _group(self._places, name)

    def whole(self) -> Group | None:
        """All boxes together."""
        return Group(self._places) if self._places else None

    async def sweep(self, keep: Iterable[str]) -> None:
        """End and remove every group but those, also what earlier services have left."""
        kept = set(keep)
        for places in self._recorded():
            names = {name for place in places.values() for name in _children(place.directory)}
            for name in names - kept:
                await _group(places, name).remove()
        self._tidy()

    def close(self) -> None:
        """Remove what is empty; groups of boxes that run on stay."""
        self._tidy(closing=True)
        if self._left and not any(place.directory.exists() for place in self._places.values()):
            with suppress(OSError):
                _take_back(self._left)

    def _make(self, hierarchy: Hierarchy, name: str, wanted: Sequence[str]) -> Place:
        if hierarchy.version == 1:
            directory = hierarchy.own / name
            directory.mkdir(exist_ok=True)
            if "cpu" in wanted:
                # As much as the service and its other neighbours, each a thread on one processor.
                shares = min(1024 * (os.cpu_count() or 1), 262_144)
                (directory / "cpu.shares").write_text(str(shares))
            return Place(1, directory)
        parent = hierarchy.own.parent if hierarchy.own.name == SERVICE else hierarchy.own
        offered = [c for c in wanted if c not in ALWAYS]
        if missing := set(offered) - _words(parent / "cgroup.subtree_control"):
            self._left = _vacate(parent)
            _enable(parent, missing)
        directory = parent / name
        directory.mkdir(exist_ok=True)
        _enable(directory, offered)
        return Place(2, directory)

    def _tidy(self, *, closing: bool = False) -> None:
        used = set() if closing else {place.directory for place in self._places.values()}
        recorded = self._recorded()
        for directory in {place.directory for each in recorded for place in each.values()} - used:
            with suppress(OSError):
                directory.rmdir()
        self._remember(
            places
            for places in recorded
            if any(place.directory.exists() for place in places.values())
        )

    def _recorded(self) -> list[dict[str, Place]]:
        try:
            document = json.loads(self._record.read_bytes())
            return [
                {name: Place(int(version), Path(path)) for name, (version, path) in each.items()}
                for each in document
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, AttributeError):
            _log.warning("%s cannot be read: groups of earlier services stay", self._record)
            return []

    def _remember(self, generations: Iterable[dict[str, Place]]) -> None:
        document: list[dict[str, tuple[int, str]]] = []
        for places in generations:
            each = {name: (place.version, str(place.directory)) for name, place in places.items()}
            if each not in document:
                document.append(each)
        if not document:
            self._record.unlink(missing_ok=True)
            return
        self._record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.rename(self._record)


def hierarchies(proc: Path = Path("/proc/self")) -> list[Hierarchy]:
    """Those that are mounted here, read-only ones too."""
    try:
        mounts = (proc / "mountinfo").read_text().splitlines()
        memberships = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in memberships:
        _, names, path = line.split(":", 2)
        for mount in mounts:
            if own := _own(mount, set(filter(None, names.split(","))), path):
                found.append(own)
                break
    return found


def _own(mount: str, controllers: set[str], path: str) -> Hierarchy | None:
    """Where a group of that path lies in a mount, if it is a mount of that hierarchy."""
    before, _, after = mount.partition(" - ")
    root, point = before.split()[3:5]
    kind, _, options = after.split(" ", 2)
    if kind == "cgroup2" and not controllers:
        version = 2
    elif kind == "cgroup" and controllers and controllers <= set(options.split(",")):
        version = 1
    else:
        return None
    if root != "/" and not f"{path}/".startswith(f"{root}/"):
        return None
    own = Path(point) / (path if root == "/" else path.removeprefix(root)).strip("/")
    if version == 2:
        controllers = _words(own / "cgroup.controllers") | ALWAYS
    return Hierarchy(version, frozenset(controllers), own)


def _turn(hierarchy: Hierarchy) -> tuple[bool, int]:
    """The freezer of version 1 last: what it holds can only be killed by letting it go on."""
    return hierarchy.version == 1 and "freezer" in hierarchy.controllers, hierarchy.version


def _vacate(parent: Path) -> Path:
    """Move this process out of `parent`, where groups are to be limited. Raises Refused."""
    if not (parent / "cgroup.type").exists():
        raise Refused("the service runs in the root group, whose controllers are not its own")
    mine = str(os.getpid())
    others = _words(parent / "cgroup.procs") - {mine}
    if others and not _is_delegated(parent):
        raise Refused(
            "other processes share its group: start it with `systemd-run --scope -p Delegate=yes` "
            "(with --user for a plain user), or as a unit with Delegate=yes"
        )
    service = parent / SERVICE
    service.mkdir(exist_ok=True)
    for pid in [mine, *others]:
        with suppress(ProcessLookupError):
            (service / "cgroup.procs").write_text(pid)
    return parent


def _take_back(parent: Path) -> None:
    for controller in _words(parent / "cgroup.subtree_control"):
        (parent / "cgroup.subtree_control").write_text(f"-{controller}")
    for pid in _words(parent / SERVICE / "cgroup.procs"):
        (parent / "cgroup.procs").write_text(pid)
    (parent / SERVICE).rmdir()


def _is_delegated(directory: Path) -> bool:
    """systemd marks what it has given away."""
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            return os.getxattr(directory, name) == b"1"
    return False


def _enable(directory: Path, controllers: Iterable[str]) -> None:
    for controller in sorted(controllers):
        (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _why(hierarchy: Hierarchy, error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return f"its control group (version {hierarchy.version}) cannot be used: {said}"


def _group(places: dict[str, Place], name: str) -> Group:
    return Group(
        {c: place._replace(directory=place.directory / name) for c, place in places.items()}
    )


def _children(directory: Path) -> list[str]:
    with suppress(OSError):
        return [entry.name for entry in os.scandir(directory) if entry.is_dir()]
    return []


def _words(file: Path) -> set[str]:
    return set(file.read_text().split()) if file.exists() else set()
