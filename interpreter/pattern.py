"""Searching lines for a regular expression that may take forever.

`re` holds the interpreter's lock while it matches and cannot be stopped, so a pattern like
`(a+)+$` on a hostile line would stop the whole service, from a thread too. Each search therefore
runs in a process of its own, with a limit of processor time and of memory, and is killed when
nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Self

from interpreter.errors import InvalidRequest

PROGRAM = Path(__file__).parent / "pattern_program.py"
PATTERN_CHARACTERS = 10_000
ANSWER_BYTES = 4 * 1024 * 1024


class PatternSearch:
    """Used as a context; `feed` lines, then `end`; `result` waits for the first that matches."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > PATTERN_CHARACTERS:
            raise InvalidRequest(
                f"expected a pattern of at most {PATTERN_CHARACTERS} characters, got {len(pattern)}"
            )
        self._pattern = pattern
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-B", str(PROGRAM)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            limit=ANSWER_BYTES,
            start_new_session=True,
        )
        self._send(self._pattern)
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()

    async def feed(self, line: str) -> bool:
        """False: the search is over. Waits while it is behind."""
        self._send(line)
        try:
            await self._stdin.drain()
        except ConnectionError:
            return False
        return True

    def end(self) -> None:
        self._stdin.close()

    async def result(self) -> tuple[str, list[str | None]] | None:
        """The line and what the pattern and its groups matched; None: no line did."""
        assert self._process.stdout
        answer = await self._process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise InvalidRequest(
                "the pattern takes too long to match, or needs too much memory: expected one that "
                "does not backtrack without end; a plain text (`regex: false`) always works"
            )
        found = json.loads(answer)
        if isinstance(found, dict):
            raise InvalidRequest(f"expected a regular expression of Python, got: {found['error']}")
        return None if found is None else (str(found[0]), found[1])

    @property
    def _stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin
        return self._process.stdin

    def _send(self, text: str) -> None:
        if not self._stdin.is_closing():
            self._stdin.write(json.dumps(text).encode() + b"\n")
