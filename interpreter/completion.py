"""Completion of commands, by a bash of its own: the session's may be busy, and is not disturbed."""

from __future__ import annotations

import re
from typing import Any

from interpreter import programs
from interpreter.attachments import Content
from interpreter.process_start import directory
from interpreter.sessions import Session

WORD = re.compile(r"[^\s;|&()<>'\"=]*$")
PATIENCE = 2.0
KEPT = 256 * 1024
SCRIPT = r"""
case $2 in
  \$*) compgen -v -P '$' -- "${2#\$}" ;;
  *) [[ $1 == first ]] && compgen -A command -- "$2"; compgen -f -- "$2" ;;
esac | LC_ALL=C sort -u | head -n 500
"""


async def complete(session: Session, content: dict[str, Any]) -> Content:
    """Content of a `complete_reply`: programs and builtins, files, exported variables."""
    code, at = content.get("code"), content.get("cursor_pos")
    if not isinstance(code, str) or not isinstance(at, int) or "\0" in code:
        raise ValueError("expected `code` and `cursor_pos`")
    before = code[: max(0, at)]
    word = before[_start(before) :]
    return {
        "status": "ok",
        "matches": await _matches(session, before, word) if word else [],
        "cursor_start": len(before) - len(word),
        "cursor_end": len(before),
        "metadata": {},
    }


async def _matches(session: Session, before: str, word: str) -> list[str]:
    box = await session.box()
    head = before[: len(before) - len(word)].rstrip(" \t")
    place = "first" if not head or head[-1] in "\n;|&(" else "other"
    argv = ["/bin/bash", "-c", SCRIPT, "complete", place, word]
    env = dict(session.environment.variables)
    where = await directory(box, session, None)
    try:
        async with box.clock.timeout(PATIENCE):
            _, text = await programs.run(box, argv, env=env, cwd=where, reads="stdout", keep=KEPT)
    except (TimeoutError, OSError):
        return []
    return text.splitlines()


def _start(before: str) -> int:
    found = WORD.search(before)
    return found.start() if found else len(before)
