"""A kernel's life, and code run in it."""

from __future__ import annotations

from kernels.kernel import Kernel
from kernels.outputs import OutputCollector


class Run(OutputCollector):
    """Code run in a kernel, with what came of it."""

    def __init__(self) -> None:
        super().__init__(1024 * 1024)
        self.late = OutputCollector(1024 * 1024)


async def run(kernel: Kernel, code: str, **options):
    collected = Run()
    collected.outcome = await kernel.execute(
        code, on_message=collected.apply, on_late=collected.late.apply, **options
    )
    return collected
