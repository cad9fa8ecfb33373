"""Where a context's kernel comes from, and the place in a box that it has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq

from interpreter.box import Box
from interpreter.environment import Environment
from interpreter.places import BoxPlace
from interpreter.sharing import Alone, Overlay, OwnKernel, Sharing, sharing_of
from interpreter.spares import Spares
from kernels.errors import CellshellError
from kernels.kernel import Kernel, KernelRecord
from kernels.messages import Message
from kernels.report import Report
from kernels.specs import PYTHON, KernelLanguage, KernelPaths


class Seat:
    """Of one context. A kernel takes it, and another one when that has ended."""

    def __init__(
        self,
        context: str,
        session: str,
        language: KernelLanguage,
        environment: Environment,
        private: Overlay,
        *,
        paths: Callable[[Box], KernelPaths],
        zmq_context: zmq.Context[Any],
        spares: Spares,
        on_other: Callable[[Message], None],
    ) -> None:
        self.place: BoxPlace | None = None
        self.sharing: Sharing = Alone()
        self._name = f"{session}:{context}"
        self._session = session
        self._language = language
        self._environment = environment
        self._private = private
        self._paths = paths
        self._zmq = zmq_context
        self._spares = spares
        self._on_other = on_other

    @property
    def is_python(self) -> bool:
        return self._language.name == PYTHON.name

    def document(self) -> dict[str, Any]:
        """What was given to the context alone."""
        return {"env": dict(self._private.env), "cwd": self._private.cwd}

    async def fill(self, box: Box) -> Kernel:
        """A kernel that answers: a spare one, or a new one. Raises KernelFailed, OSError."""
        kernel = await self._spare(box) or await self._started(box)
        if self.is_python:
            self._spares.refill(box, kernel.spec)
        return kernel

    def take_up(self, box: Box, record: KernelRecord | None = None) -> Kernel:
        """A kernel that is to be started here, or the one `record` tells of."""
        self.place = BoxPlace(box, self._name, forked=self.is_python)
        self.sharing = self._share(box)
        return Kernel(
            self._language.spec(self._paths(box)),
            self.place,
            self._zmq,
            on_report=self._reported,
            on_other=self._on_other,
            record=record,
        )

    async def end(self) -> None:
        """What runs here, and all it has started."""
        if self.place is not None:
            await self.place.end()

    async def clear(self, kernel: Kernel | None) -> None:
        """Nothing is left of the kernel and its processes."""
        place, self.place = self.place, None
        if place is not None:
            await place.end()
        if kernel is not None:
            await kernel.shutdown(now=True)
        if place is not None:
            await place.close()

    async def _spare(self, box: Box) -> Kernel | None:
        """One that was ready before it was asked for."""
        spare = await self._spares.take(box) if self.is_python else None
        if spare is None:
            return None
        self.place, self.sharing = spare.place, self._share(box)
        with suppress(CellshellError, OSError):
            if await spare.kernel.assign(
                self.sharing.arguments(), on_report=self._reported, on_other=self._on_other
            ):
                await spare.place.rename(self._name)
                return spare.kernel
        await spare.discard()
        return None

    async def _started(self, box: Box) -> Kernel:
        kernel = self.take_up(box)
        env = self._environment.overlaid(self._private.env)
        cwd = await box.directory(self._private.cwd or self._environment.cwd)
        env, cwd = self.sharing.start_with(env, cwd)
        await kernel.start(env=env, cwd=cwd, arguments=self.sharing.arguments())
        return kernel

    def _share(self, box: Box) -> Sharing:
        page = f"{box.paths.run}/env/{self._session}"
        return sharing_of(self._language, self._environment, page, self._private, box.directory)

    def _reported(self, report: Report) -> None:
        """A cell that another client sent, or one whose caller has gone."""
        if isinstance(self.sharing, OwnKernel):
            self.sharing.take(report, [])
