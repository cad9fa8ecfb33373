"""Where a sandbox lives: the plan of its box, its home, network and first variables."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

from interpreter import bash, python_environment
from interpreter.box import Box
from interpreter.egress import EgressProxy
from interpreter.egress_environment import (
    operator_passthrough,
    passthrough_files,
    passthrough_hosts,
    proxy_environment,
)
from interpreter.isolation import base_mounts, box_uid
from interpreter.models import Network
from interpreter.network_policy import OpenNetwork
from interpreter.python_environment import PythonEnvironment
from interpreter.settings import Settings
from interpreter.thin_environment import write_thin_environment
from interpreter.walls import BoxPlan, Mount, write_etc
from kernels.specs import KernelPaths, find_deno

PROXY_PORT = 3128


class Premises:
    """Of one sandbox. The box may come and go; these stay."""

    def __init__(
        self,
        directory: Path,
        number: int,
        *,
        network: Network,
        confined: bool,
        settings: Settings,
    ) -> None:
        self.directory = directory
        self.number = number
        self._network = network
        self._confined = confined
        self._settings = settings
        self.plan = self._make_plan(number)

    async def build(self, stack: AsyncExitStack) -> Box:
        """Start a box; `stack` gets what must end with it."""
        plan = self.plan
        plan.run.mkdir(parents=True, exist_ok=True)
        (plan.files / "home").mkdir(parents=True, exist_ok=True)
        write_etc(plan.files / "etc", bash.logout(plan.paths.run))
        self._write_home()
        box = await Box.start(plan)
        await self.connect(box, stack)
        return box

    async def connect(self, box: Box, stack: AsyncExitStack) -> None:
        """Give the box its network: a proxy of ours that listens inside.

        Without walls it has the machine's own, and our port would be everybody's.
        """
        if self._network != "open" or not self._confined:
            return
        passed = operator_passthrough(os.environ)
        upstream = self._settings.egress_upstream
        private = [*self._settings.egress_private_hosts, *passthrough_hosts(passed)]
        listener = await box.listen(PROXY_PORT)
        proxy = EgressProxy(
            OpenNetwork(),
            upstream=upstream.get_secret_value() if upstream else None,
            allow_private=private,
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
        if self._network == "open":
            variables |= operator_passthrough(os.environ)
            variables |= proxy_environment(PROXY_PORT) if self._confined else {}
        return variables

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
        settings, confined = self._settings, self._confined
        mounts = [Mount(*pair) for pair in python_environment.mounts(settings)]
        mounts += [mount for mount in base_mounts() if mount not in mounts]
        if self._network == "open":
            mounts += [Mount(f, f) for f in passthrough_files(operator_passthrough(os.environ))]
        return BoxPlan(
            files=self.directory,
            run=settings.runtime / str(number),
            uid=box_uid(settings, number) if confined else None,
            mounts=mounts,
            confined=confined,
            tmp_bytes=settings.tmp_bytes,
            shm_bytes=settings.shm_bytes,
        )
