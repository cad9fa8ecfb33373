"""Running code in a kernel, with what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernels.kernel import ExecuteOutcome, Kernel
from kernels.outputs import OutputCollector


@dataclass
class Run:
    outcome: ExecuteOutcome
    output: OutputCollector
    late: OutputCollector

    @property
    def stdout(self) -> str:
        return self.output.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.output.stream("stderr")

    @property
    def text(self) -> str | None:
        return self.output.text

    @property
    def ename(self) -> str | None:
        return self.outcome.error.ename if self.outcome.error else None


async def run(kernel: Kernel, code: str, **options: Any) -> Run:
    output, late = OutputCollector(1024 * 1024), OutputCollector(1024 * 1024)
    outcome = await kernel.execute(code, on_message=output.apply, on_late=late.apply, **options)
    return Run(outcome, output, late)
