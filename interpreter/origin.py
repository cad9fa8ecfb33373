"""Where an execution comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from interpreter.events import dumps, now
from interpreter.models import Exec, RunCode


@dataclass(frozen=True, slots=True)
class Origin:
    """Which request it was, where it runs, and when it was asked for."""

    fingerprint: str
    """Equal for equal requests; empty: it was given no id, so that nobody can repeat it."""
    session: str = ""
    context: str = ""
    """Empty: the session's shell."""
    begun_at: str = ""

    @classmethod
    def of(cls, kind: str, session: str, context: str, request: Exec | RunCode) -> Self:
        return cls(_fingerprint(kind, session, request), session, context, now())

    @classmethod
    def restore(cls, meta: Mapping[str, Any]) -> Self:
        """Out of what `asdict` made of it, by this version or an earlier one."""
        return cls(**{name: str(meta.get(name, "")) for name in cls.__slots__})

    def asdict(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__slots__}


def _fingerprint(kind: str, session: str, request: Exec | RunCode) -> str:
    if request.id is None:
        return ""
    document = request.model_dump(exclude={"id"})
    return hashlib.sha256(dumps([kind, session, document])).hexdigest()
