"""What callers did in a session besides running something: the last of it, for its notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from interpreter.events import dumps, now

log = logging.getLogger(__name__)
KEPT = 256 * 1024
"""Bytes of the newest that are kept at least; twice as much is there at most."""


@dataclass(frozen=True)
class Deed:
    """A file written, moved or removed, a variable set: what, when, and with what."""

    at: str
    verb: str
    facts: dict[str, Any]


class Deeds:
    """One line of JSON each, in a file of the service's own."""

    def __init__(self, path: Path, kept: int = KEPT) -> None:
        self._path = path
        self._kept = kept

    def note(self, verb: str, **facts: Any) -> None:
        """That it cannot be written down is no reason to refuse what was done already."""
        line = dumps([now(), verb, facts]) + b"\n"
        try:
            self._path.parent.mkdir(exist_ok=True, mode=0o700)
            with self._path.open("ab") as file:
                file.write(line)
                full = file.tell() > 2 * self._kept
            if full:
                self._shorten()
        except OSError as error:
            log.warning("not written down, for the notebook of a session: %s", error.strerror)

    def __iter__(self) -> Iterator[Deed]:
        """The oldest first."""
        for line in self._read().splitlines():
            try:
                at, verb, facts = orjson.loads(line)
            except ValueError:  # torn: the service was killed in the middle
                continue
            yield Deed(str(at), str(verb), dict(facts))

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _shorten(self) -> None:
        _, _, newest = self._read()[-self._kept :].partition(b"\n")
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(newest)
        fresh.replace(self._path)
