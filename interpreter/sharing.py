"""How a context's kernel takes part in the environment of its session."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from interpreter.environment import Environment, shareable
from interpreter.languages import MIME, Adapter, adapter_for
from interpreter.models import EnvironmentChanges, Notice
from interpreter.partner import Partner
from kernels import messages
from kernels.kernel import ExecuteOutcome, Kernel, OnEvent
from kernels.report import Report
from kernels.specs import PYTHON, KernelLanguage

REPORT_GRACE = 2.0

Nearest = Callable[[str], Awaitable[str]]
"""A directory if it can be entered, else the nearest parent that can."""


@dataclass(frozen=True)
class Overlay:
    """`cwd` and `env` that hold for one call, or for one context."""

    env: Mapping[str, str | None] = field(default_factory=dict)
    cwd: str | None = None

    def over(self, other: Overlay) -> Overlay:
        return Overlay({**other.env, **self.env}, self.cwd if self.cwd is not None else other.cwd)

    def __bool__(self) -> bool:
        return bool(self.env) or self.cwd is not None


@dataclass
class Ran:
    """How a cell ended and what it changed."""

    outcome: ExecuteOutcome
    changes: EnvironmentChanges = field(default_factory=EnvironmentChanges)
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One cell for a kernel."""

    code: str
    call: Overlay
    on_message: OnEvent
    on_late: OnEvent
    id: str
    resumed: bool = False
    """An earlier service sent it: what is wanted is the rest."""
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    async def send(
        self, kernel: Kernel, metadata: Mapping[str, Any] | None = None
    ) -> ExecuteOutcome:
        if self.resumed and not kernel.repeats:
            return await kernel.follow(self.id, on_message=self.on_message, on_late=self.on_late)
        return await kernel.execute(
            self.code,
            id=self.id,
            metadata={**self.metadata, **(metadata or {})},
            options=self.options,
            shown=True,
            on_message=self.on_message,
            on_late=self.on_late,
        )


class Sharing(Protocol):
    def arguments(self) -> list[str]:
        """Words for the kernel's command line."""

    def start_with(self, env: dict[str, str], cwd: str) -> tuple[dict[str, str], str]:
        """What of this the kernel can be started with."""

    async def run(self, kernel: Kernel, run: Run) -> Ran: ...


class Alone:
    """A language without an adapter: starts in the environment, and no more."""

    def arguments(self) -> list[str]:
        return []

    def start_with(self, env: dict[str, str], cwd: str) -> tuple[dict[str, str], str]:
        return env, cwd

    async def run(self, kernel: Kernel, run: Run) -> Ran:
        return Ran(await run.send(kernel))


class OwnKernel:
    """Our Python kernel reads the page before each cell and reports in the reply."""

    def __init__(
        self, environment: Environment, page: str, private: Overlay, nearest: Nearest
    ) -> None:
        self._environment = environment
        self._nearest = nearest
        self._page = page
        self._private = private

    def arguments(self) -> list[str]:
        words = ["--page", self._page]
        if self._private:
            private = {"env": dict(self._private.env), "cwd": self._private.cwd}
            words += ["--private", json.dumps(private)]
        return words

    def start_with(self, env: dict[str, str], cwd: str) -> tuple[dict[str, str], str]:
        return env, cwd

    async def run(self, kernel: Kernel, run: Run) -> Ran:
        told = {"env": dict(run.call.env), "cwd": run.call.cwd}
        outcome = await run.send(kernel, {"cellshell": told} if run.call else None)
        ran = Ran(outcome)
        if outcome.report is not None:
            ran.notices = notices_of(outcome.report)
            if outcome.report.missing_cwd is not None:
                await self._leave(outcome.report.missing_cwd)
            ran.changes = self.take(outcome.report, ran.notices)
        return ran

    async def _leave(self, missing: str) -> None:
        """The session goes where the kernel went, when its directory is gone."""
        if missing == self._environment.cwd:
            with suppress(OSError):
                self._environment.merge({}, await self._nearest(missing))

    def take(self, report: Report, notices: list[Notice]) -> EnvironmentChanges:
        changes: dict[str, str | None] = {**report.set, **dict.fromkeys(report.unset)}
        changes, left = self._environment.fitting(changes)
        if left:
            notices.append(too_large(left))
        return self._environment.merge(changes, report.cwd)


class PartnerKernel:
    """A kernel that runs nothing of ours: silent requests around each cell, in one pipeline."""

    def __init__(
        self, environment: Environment, adapter: Adapter, private: Overlay, nearest: Nearest
    ) -> None:
        self._environment = environment
        self._adapter = adapter
        self._nearest = nearest
        self._started: tuple[dict[str, str], str] = ({}, "/")
        self._unshared: dict[str, str] = {}
        self._private = private
        self._private_cwd = private.cwd
        self._partner: Partner | None = None
        self._kernel: Kernel | None = None

    def arguments(self) -> list[str]:
        return []

    def start_with(self, env: dict[str, str], cwd: str) -> tuple[dict[str, str], str]:
        holds = self._adapter.holds
        while not holds("PWD", cwd):
            cwd = os.path.dirname(cwd)
        self._started = {name: v for name, v in env.items() if holds(name, v)}, cwd
        return self._started

    async def run(self, kernel: Kernel, run: Run) -> Ran:
        if run.resumed:
            return Ran(await run.send(kernel))
        call, on_message = run.call, run.on_message
        partner = await self._partner_of(kernel)
        notices: list[Notice] = []
        await self._leave_missing(call, notices)
        env, cwd = self._wanted(call)

        def entered(bundle: Mapping[str, Any]) -> None:
            if (path := partner.entered(bundle[MIME])) is not None:
                notices.append(missing_cwd(cwd, path))

        before = partner.before(env, cwd)
        if before is not None:
            aside = Aside(entered, on_message)
            await kernel.execute(before, silent=True, on_message=aside.see, on_late=aside.see)
        ran = Ran(await run.send(kernel), notices=notices)
        if ran.outcome.status != "died" and kernel.running:
            take = partial(self._take, partner, call, ran)
            await self._report(kernel, partner, Aside(take, on_message))
        return ran

    async def _report(self, kernel: Kernel, partner: Partner, aside: Aside) -> None:
        """Ask for a report and wait for it: Deno may publish it only after `idle`."""
        for _ in range(2):  # R aborts what was queued behind a failing cell: then it is sent again
            outcome = await kernel.execute(
                partner.after(), silent=True, on_message=aside.see, on_late=aside.see
            )
            if outcome.status != "aborted":
                break
        waited: set[asyncio.Future[Any]] = {aside.seen, kernel.died}
        await asyncio.wait(waited, timeout=REPORT_GRACE, return_when=asyncio.FIRST_COMPLETED)

    def _wanted(self, call: Overlay) -> tuple[dict[str, str], str]:
        private = Overlay(self._private.env, self._private_cwd)
        overlay = call.over(private)
        env = {**self._unshared, **self._environment.overlaid(overlay.env)}
        return env, overlay.cwd or self._environment.cwd

    async def _leave_missing(self, call: Overlay, notices: list[Notice]) -> None:
        """The kernel may be in a directory that is gone, which it would not tell."""
        cwd = self._private_cwd or self._environment.cwd
        if call.cwd is not None or (nearest := await self._nearest(cwd)) == cwd:
            return
        notices.append(missing_cwd(cwd, nearest))
        if self._private_cwd is not None:
            self._private_cwd = nearest
        else:
            self._environment.merge({}, nearest)

    async def _partner_of(self, kernel: Kernel) -> Partner:
        if self._partner is None or self._kernel is not kernel:
            self._partner, self._kernel = Partner(self._adapter, *self._started), kernel
            await self._learn(kernel, self._partner)
        return self._partner

    async def _learn(self, kernel: Kernel, partner: Partner) -> None:
        await self._report(kernel, partner, Aside(lambda bundle: partner.learn(bundle[MIME])))

    def _take(self, partner: Partner, call: Overlay, ran: Ran, bundle: Mapping[str, Any]) -> None:
        changed = partner.changes(bundle[MIME])
        if changed is None:
            return
        private = {*call.env, *self._private.env}
        told: dict[str, str | None] = {**changed.set, **dict.fromkeys(changed.unset)}
        shared = {n: v for n, v in told.items() if n not in private and shareable(n)}
        cwd = changed.cwd
        if self._private_cwd is not None and call.cwd is None:
            self._private_cwd, cwd = cwd or self._private_cwd, None
        shared, left = self._environment.fitting(shared)
        if left:
            ran.notices.append(too_large(left))
        unshared = {**self._unshared, **left}.items()
        self._unshared = {name: value for name, value in unshared if told.get(name, value) == value}
        ran.changes = self._environment.merge(shared, None if call.cwd else cwd)


def sharing_of(
    language: KernelLanguage,
    environment: Environment,
    page: str,
    private: Overlay,
    nearest: Nearest,
) -> Sharing:
    """The way for kernels of a language; `page` is where its session's environment is told."""
    if language.name == PYTHON.name:
        return OwnKernel(environment, page, private, nearest)
    adapter = adapter_for(language.name)
    if adapter is None:
        return Alone()
    return PartnerKernel(environment, adapter, private, nearest)


class Aside:
    """Takes our own displays out of what a silent request puts out; the rest is the cell's.

    Deno may publish a cell's last output with the request that follows it as its parent.
    """

    def __init__(
        self, on_bundle: Callable[[Mapping[str, Any]], object], rest: OnEvent | None = None
    ) -> None:
        self.seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_bundle = on_bundle
        self._rest = rest

    def see(self, event: messages.Event) -> None:
        if isinstance(event, messages.Display) and MIME in event.data:
            self._on_bundle(event.data)
            if not self.seen.done():
                self.seen.set_result(None)
        elif self._rest is not None:
            self._rest(event)


def notices_of(report: Report) -> list[Notice]:
    notices = []
    if report.missing_cwd is not None:
        notices.append(missing_cwd(report.missing_cwd, None))
    if report.skipped:
        names = ", ".join(report.skipped[:20])
        notices.append(
            Notice(
                code="environment_skipped",
                message=f"not shared, since too long or not a name a shell can hold: {names}",
            )
        )
    return notices


def missing_cwd(path: str, entered: str | None) -> Notice:
    where = f" in {entered}" if entered else " in its nearest parent"
    return Notice(
        code="cwd_missing", message=f"the working directory {path} does not exist: this ran{where}"
    )


def too_large(changes: Mapping[str, str | None]) -> Notice:
    names = ", ".join(sorted(changes)[:20])
    return Notice(
        code="environment_skipped",
        message="not shared, since a value may have 128 KiB and the whole environment 1 MiB at "
        f"most: {names}",
    )
