"""Repositories, cloned inside a box by the git that is there."""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from interpreter import git_url, programs
from interpreter.errors import CellshellError, FileExists, GitFailed, InvalidGitUrl
from interpreter.file_errors import os_refusal, show
from interpreter.models import Checkout
from interpreter.programs import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interpreter.box import Box
    from interpreter.git_url import GitUrl
    from interpreter.models import GitCheckout

LAST_LINES = 8
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
MISLEADING = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"})
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


async def checkout(
    box: Box,
    request: GitCheckout,
    *,
    env: Mapping[str, str],
    cwd: str,
    resolve: Callable[[str], str],
) -> Checkout:
    """Clone; what was cloned so far is removed when it fails, takes too long or is cancelled."""
    url = git_url.parse(request.url)
    if request.branch is not None:
        git_url.check("a branch", request.branch)
    directory = _directory(url, request.directory, cwd, resolve)
    existed = await _check_free(box, directory)
    git = _Git(box, _environment(env, url))
    try:
        async with box.clock.timeout(request.timeout):
            code, text = await git.run(_words(url, request, directory))
            if code == 0:
                return await _describe(git, directory)
    except BaseException as error:
        await _remove(git, directory, existed)
        if isinstance(error, TimeoutError):
            raise GitFailed(f"git took longer than {request.timeout:g} s and was ended") from None
        raise
    await _remove(git, directory, existed)
    lines = "\n".join(url.censor(show(text)).strip().splitlines()[-LAST_LINES:])
    raise GitFailed(f"git ended with {code}: {lines or 'it said nothing'}", exit_code=code)


class _Git:
    """Runs git inside the box and reads what it says, the last of it."""

    def __init__(self, box: Box, env: Mapping[str, str]) -> None:
        self.box = box
        self._env = env

    async def run(self, argv: Sequence[str], *, answers: bool = False) -> tuple[int, str]:
        """Its exit code and what it said, or answered; all it started is over when this is."""
        reads: Stream = "stdout" if answers else "stderr"
        try:
            return await programs.run(self.box, argv, env=self._env, cwd="/", reads=reads)
        except FileNotFoundError:
            raise GitFailed(f"{argv[0]} was not found on the PATH in the sandbox") from None
        except OSError as error:
            raise os_refusal(error, argv[0]) from error


def _words(url: GitUrl, request: GitCheckout, directory: str) -> list[str]:
    words = ["git", "clone", "--quiet"]
    if request.branch is not None:
        words += ["--branch", request.branch]
    if request.depth is not None:
        words += ["--depth", str(request.depth)]
        # Git ignores a depth where it can copy the files instead.
        words += ["--no-local"] if url.local else []
    return [*words, "--", url.url, directory]


def _environment(env: Mapping[str, str], url: GitUrl) -> dict[str, str]:
    """The session's, without what leads git elsewhere; credentials are here and in no file."""
    merged = {name: value for name, value in env.items() if name not in MISLEADING}
    merged["GIT_TERMINAL_PROMPT"] = "0"
    merged["GIT_ALLOW_PROTOCOL"] = "file" if url.local else "https:http:ssh:git"
    merged.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    if url.header:
        count = merged.get("GIT_CONFIG_COUNT", "0")
        number = int(count) if re.fullmatch("[0-9]{1,4}", count) else 0
        merged[f"GIT_CONFIG_KEY_{number}"], merged[f"GIT_CONFIG_VALUE_{number}"] = url.header
        merged["GIT_CONFIG_COUNT"] = str(number + 1)
    return merged


def _directory(url: GitUrl, asked: str | None, cwd: str, resolve: Callable[[str], str]) -> str:
    if asked is not None:
        git_url.check("a directory", asked)
        return resolve(asked)
    if url.name in ("", ".", ".."):
        raise InvalidGitUrl("the URL names no directory to clone into: give `directory`")
    return posixpath.join(cwd, url.name)


async def _check_free(box: Box, directory: str) -> bool:
    """Whether an empty directory is there already; raises when anything else is."""
    try:
        fd = await box.open(directory, DIRECTORY)
    except FileNotFoundError:
        if await _is_link(box, directory):
            raise _taken(directory) from None
        return False
    except NotADirectoryError:
        raise _taken(directory) from None
    except OSError as error:
        raise os_refusal(error, directory) from error
    try:
        if await asyncio.to_thread(os.listdir, fd):
            raise _taken(directory)
    finally:
        os.close(fd)
    return True


async def _is_link(box: Box, path: str) -> bool:
    try:
        os.close(await box.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _taken(directory: str) -> FileExists:
    shown = show(directory)
    return FileExists(f"{shown} exists and is no empty directory: choose another", path=shown)


async def _remove(git: _Git, directory: str, existed: bool) -> None:
    """Git removes what it made when it can; not after SIGKILL."""
    where = ["-mindepth", "1"] if existed else []
    with suppress(CellshellError, ConnectionError):
        await git.run(["find", directory, *where, "-delete"])


async def _describe(git: _Git, directory: str) -> Checkout:
    async def ask(*words: str) -> str | None:
        argv = ["git", "-C", directory, *words]
        code, text = await git.run(argv, answers=True)
        return text.strip() if code == 0 else None

    commit = await ask("rev-parse", "--verify", "--quiet", "HEAD")
    branch = await ask("symbolic-ref", "--quiet", "--short", "HEAD")
    if commit is None or not COMMIT.fullmatch(commit):
        commit = ""
    return Checkout(directory=show(directory), branch=branch or None, commit=commit)
