"""Limits that init sets on itself, and with that on everything in the box."""

from __future__ import annotations

import resource


def limit(open_files: int = 1 << 30, processes: int = -1) -> None:
    """For init and all it starts."""
    files = min(open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if processes > 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
