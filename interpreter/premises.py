"""Where a sandbox lives: the plan of its box, its home, network and first variables."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from interpreter import bash, landlock, python_environment
from interpreter.allowed_host import AllowedHost, as_address
from interpreter.box import Box
from interpreter.egress import EgressProxy
from interpreter.egress_environment import (
    operator_passthrough,
    passthrough_files,
    passthrough_hosts,
    proxy_environment,
    write_ssh_config,
)
from interpreter.errors import InvalidRequest, NetworkUnsupported, NotReady
from interpreter.fields import Network
from interpreter.hints import Hints
from interpreter.isolation import base_mounts, box_gid, box_uid
from interpreter.limit_models import Usage
from interpreter.models import CreateSandbox, Isolation
from interpreter.network_log import NetworkLog
from interpreter.network_policy import (
    ListedNetwork,
    OpenNetwork,
    Policy,
    VouchedHosts,
    is_public,
)
from interpreter.python_environment import PythonEnvironment
from interpreter.removal import remove_tree
from interpreter.resources import Resources
from interpreter.settings import Settings
from interpreter.strikes import Strikes
from interpreter.thin_environment import write_thin_environment
from interpreter.usage import measure
from interpreter.walls import BoxPlan, Mount, write_etc
from kernels.specs import PYTHON, KernelPaths, find_deno

PROXY_PORT = 3128
NO_CONNECTIONS = (
    "code in a box of this tier cannot connect to anything here, as `isolation.reason` in "
    'GET /health says: leave `network` out or give "none"'
)


class Premises:
    """Of one sandbox. The box may come and go; these stay."""

    def __init__(
        self, directory: Path, number: int, *, request: CreateSandbox, resources: Resources
    ) -> None:
        isolation, settings = resources.isolation, resources.settings
        network, limits = request.network, request.limits
        self.directory = directory
        self._forks = resources.forks if isolation.tier == "bwrap" else None
        self._spares = resources.spares
        self._enforcement = resources.enforcement
        self._limits = limits
        self.group = self._enforcement.group(number)
        self.strikes = Strikes(limits)
        self.network_log = NetworkLog(directory / "network.log")
        self.hints = Hints(None if network == "none" else self.network_log, self.strikes)
        self.number = number
        self._network = network
        self._isolation = isolation
        self._settings = settings
        self._uid = box_uid(settings, number) if self._walled else None
        self._disk = self._enforcement.disk(directory, limits, self._uid)
        self.plan = self._make_plan(number)

    @property
    def _walled(self) -> bool:
        return self._isolation.tier != "none"

    @property
    def _shared(self) -> bool:
        """Walled in, on the machine's own network."""
        return self._isolation.tier == "process"

    @property
    def _proxied(self) -> bool:
        """Without walls a box has the machine's own network, and our port would be everybody's."""
        return self._walled and self._network != "none"

    async def build(self, stack: AsyncExitStack) -> Box:
        """Start a box; `stack` gets what must end with it."""
        plan = self.plan
        self._check_kept()
        self._enforcement.check(self._limits)
        if self._disk:
            await self._disk.mount()
        plan.run.mkdir(parents=True, exist_ok=True)
        (plan.files / "home").mkdir(parents=True, exist_ok=True)
        if self._shared:
            await asyncio.to_thread(remove_tree, plan.files / "tmp")
            landlock.open_ways(plan, self._settings.home)
        write_etc(plan.files / "etc", bash.logout(plan.paths.run))
        if self._proxied:
            write_ssh_config(plan.files / "etc", f"{plan.paths.guest}/connect.py", PROXY_PORT)
        self._write_home()
        if self.group.exists:
            await self.group.remove()
        try:
            self.group.create(self._limits)
        except OSError as error:
            raise NotReady(f"the sandbox's limits cannot be set: {error}") from error
        try:
            box = await Box.start(plan, self.group.joins)
        except BaseException:
            await self.group.remove()
            raise
        self.strikes.watch(self.group)
        await self.connect(box, stack)
        self.warm(box)
        return box

    def warm(self, box: Box) -> None:
        """Have a kernel ready there."""
        self._spares.refill(box, PYTHON.spec(self.kernel_paths(box)))

    def move(self, directory: Path) -> None:
        """The files of a box that runs: what is mounted in it goes along. Raises OSError."""
        self.directory.rename(directory)
        self.directory = directory
        self.network_log = NetworkLog(directory / "network.log")
        self.plan = replace(self.plan, files=directory)

    async def usage(self, box: Box | None) -> Usage:
        """What it uses now; it is not woken for that."""
        root = box.host_pid if box else None
        files = [self.plan.files / "workspace", self.plan.files / "home"]
        return await asyncio.to_thread(
            measure, root, self.group.reading(), self._limits, self._disk, files
        )

    async def vacate(self) -> None:
        """After its box has ended: nothing is left of the group."""
        if self.group.exists:
            await self.group.remove()

    async def demolish(self) -> None:
        """Before the sandbox's files are removed."""
        await self.vacate()
        if self._disk:
            await self._disk.unmount()

    async def connect(self, box: Box, stack: AsyncExitStack) -> None:
        """Give the box what it has of the service: warm kernels, and its network."""
        box.forks = self._forks
        box.limited = bool(self._limits.memory_bytes or self._limits.pids)
        stack.push_async_callback(self._spares.forget, box)
        if not self._proxied:
            return
        upstream = self._settings.egress_upstream
        listener = await box.listen(0 if self._shared else PROXY_PORT)
        if self._shared:
            landlock.tell_proxy(self.plan, listener)
        proxy = EgressProxy(
            _policy(self._network),
            upstream=upstream.get_secret_value() if upstream else None,
            upstream_resolves=self._settings.egress_upstream_resolves,
            allow_private=private_hosts(self._settings),
            log=self.network_log,
        )
        await (await stack.enter_async_context(proxy)).serve(listener)

    def variables(self) -> dict[str, str]:
        """What every session starts with."""
        home = self.plan.paths.home
        variables = {
            "HOME": home,
            "USER": "user",
            "LOGNAME": "user",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "VIRTUAL_ENV": f"{home}/.venv",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PATH": f"{home}/.venv/bin:{home}/.local/bin:/usr/local/sbin:/usr/local/bin:"
            "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        if self._network != "none":
            variables |= operator_passthrough(os.environ)
            variables |= proxy_environment(PROXY_PORT) if self._walled else {}
        return variables | (
            landlock.variables(self.plan, proxied=self._proxied) if self._shared else {}
        )

    def _check_kept(self) -> None:
        """A sandbox that was made behind walls, of a service that has none now."""
        if not self._walled and self._network != "open":
            raise NotReady(
                "this sandbox was made with a network policy that cannot be kept where there are "
                "no walls: start the service where boxes can be built, or delete the sandbox"
            )
        if self._network != "none" and not self._isolation.connects:
            raise NotReady(f"this sandbox was made with a network: {NO_CONNECTIONS}")

    def kernel_paths(self, box: Box) -> KernelPaths:
        deno = python_environment.DENO_INSIDE if self.plan.confined else str(find_deno())
        return KernelPaths(
            python=f"{box.paths.home}/.venv/bin/python",
            guest=box.paths.kernel_guest,
            deno=deno,
            home=box.paths.home,
        )

    def _write_home(self) -> None:
        plan, home = self.plan, self.plan.files / "home"
        environment = PythonEnvironment.read(self._settings.python_home.absolute())
        inside = python_environment.INSIDE if plan.confined else str(environment.path)
        if plan.uid is not None:
            os.chown(home, plan.uid, plan.uid)
        write_thin_environment(
            home,
            environment,
            inside_home=plan.paths.home,
            inside_environment=inside,
            uid=plan.uid,
        )
        if not plan.confined and not (home / ".bash_logout").exists():
            (home / ".bash_logout").write_text(bash.logout(plan.paths.run))

    def _make_plan(self, number: int) -> BoxPlan:
        settings, isolation = self._settings, self._isolation
        mounts = [Mount(*pair) for pair in python_environment.mounts(settings)]
        mounts += [mount for mount in base_mounts() if mount not in mounts]
        if self._forks:
            mounts += [Mount(path, path) for path in self._forks.bound]
        if self._network != "none":
            mounts += [Mount(f, f) for f in passthrough_files(operator_passthrough(os.environ))]
        return BoxPlan(
            files=self._disk.directory if self._disk else self.directory,
            run=settings.runtime / str(number),
            uid=self._uid,
            gid=box_gid(settings),
            rlimits=self._enforcement.rlimits(self._limits) if self._walled else {},
            mounts=mounts,
            tier=isolation.tier,
            connects=isolation.connects,
            tmp_bytes=settings.tmp_bytes,
            shm_bytes=settings.shm_bytes,
        )


def with_network(request: CreateSandbox, settings: Settings, isolation: Isolation) -> CreateSandbox:
    """The request with the network that its sandbox will have.

    Raises NetworkUnsupported for what cannot be kept here, and InvalidRequest for a list that
    holds addresses nobody but the operator can open.
    """
    network = request.network
    if isolation.tier == "none":
        if network != "open" and "network" in request.model_fields_set:
            raise NetworkUnsupported(
                f"{_shown(network)} cannot be kept here, since code runs without walls and has the "
                'network of this machine: leave `network` out or give "open"'
            )
        return request.model_copy(update={"network": "open"})
    if network != "none" and not isolation.connects:
        raise NetworkUnsupported(f"{_shown(network)} cannot be had here: {NO_CONNECTIONS}")
    if not isinstance(network, str):
        _check_addresses(network.allow, VouchedHosts(private_hosts(settings)))
    return request


def private_hosts(settings: Settings) -> list[str]:
    """What the operator has opened, the package indexes among it."""
    passed = operator_passthrough(os.environ)
    return [*settings.egress_private_hosts, *passthrough_hosts(passed)]


def _check_addresses(allow: Sequence[str], vouched: VouchedHosts) -> None:
    for number, entry in enumerate(allow):
        host = AllowedHost.parse(entry)
        if as_address(host.host) is None or is_public(host.host):
            continue
        if not all(vouched.include(host.host, port) for port in host.ports):
            raise InvalidRequest(
                f"network.allow.{number}: expected a public address, got {entry!r}: private and "
                "reserved ones are opened by the operator alone, in `egress_private_hosts`",
                errors=[{"detail": "not public", "pointer": f"#/network/allow/{number}"}],
            )


def _policy(network: Network) -> Policy:
    return OpenNetwork() if isinstance(network, str) else ListedNetwork(network.allow)


def _shown(network: Network) -> str:
    return f'`network: "{network}"`' if isinstance(network, str) else "a list of allowed hosts"
