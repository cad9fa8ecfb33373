"""Searches lines for a pattern, in a process of its own (see pattern.py).

    python -I -S -B pattern_program.py

Reads JSON strings, one a line: the pattern, then the lines. Answers with one line: the first
line that matches with its groups, null when none did, or what is wrong with the pattern.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU_SECONDS = 10
MEMORY_BYTES = 256 * 1024 * 1024


def search(lines: Iterable[str]) -> object:
    iterator = iter(lines)
    try:
        pattern = re.compile(json.loads(next(iterator)))
    except (re.error, OverflowError, RecursionError) as error:
        return {"error": str(error)[:500]}
    for encoded in iterator:
        line = json.loads(encoded)
        if match := pattern.search(line):
            return [line, [match[0], *match.groups()]]
    return None


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    sys.stdout.write(json.dumps(search(sys.stdin)) + "\n")


if __name__ == "__main__":
    main()
