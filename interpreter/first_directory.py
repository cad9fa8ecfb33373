"""The working directory that a new session begins in."""

from __future__ import annotations

import posixpath

from interpreter.box import Box
from interpreter.errors import InvalidCwd
from interpreter.file_errors import os_refusal


async def first_directory(box: Box, cwd: str) -> str:
    """Absolute, as the code sees it; made where it is missing below the workspace.

    Raises InvalidCwd.
    """
    paths = box.paths
    if cwd == "~" or cwd.startswith("~/"):
        cwd = paths.home + cwd[1:]
    path = paths.actual(posixpath.normpath(posixpath.join(paths.workspace, cwd)))
    create = path.startswith(paths.workspace + "/")
    try:
        if await box.directory(path, create=create) == path:
            return path
    except OSError as error:
        refused = os_refusal(error, path)
        if refused.status == 503:
            raise refused from error
    raise InvalidCwd(
        f"expected `cwd` to be a directory that can be entered, got {cwd!r}: a missing one is "
        "created only inside /workspace",
    )
