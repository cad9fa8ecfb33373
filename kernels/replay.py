"""What our own kernel says it said while nobody was connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from jupyter_client.session import DELIM

from kernels.messages import Message, count

SIGNED = 5
"""Signature, header, parent header, metadata, content."""


@dataclass(frozen=True, slots=True)
class Replay:
    """`messages` are frames as they came, by channel: each is still to be checked as any is."""

    messages: Sequence[tuple[str, Sequence[bytes]]] = ()
    lost: int = 0
    """Messages that the kernel no longer had."""
    execution_count: int = 0
    complete: bool = field(default=False)
    """Whether there was an answer at all."""

    @classmethod
    def of(cls, reply: Message | None) -> Self:
        if reply is None or reply.content.get("status") != "ok":
            return cls()
        numbers = [count(number) or 0 for number in _list(reply.content.get("numbers"))]
        bodies = [
            [DELIM, *reply.buffers[at : at + SIGNED]] for at in range(0, len(reply.buffers), SIGNED)
        ]
        output = [
            ("iopub", [b"#%d" % number, *body])
            for number, body in zip(numbers, bodies, strict=False)
        ]
        replies = [("shell", body) for body in bodies[len(numbers) :]]
        return cls(
            messages=[*output, *replies],
            lost=count(reply.content.get("lost")) or 0,
            execution_count=count(reply.content.get("execution_count")) or 0,
            complete=True,
        )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
