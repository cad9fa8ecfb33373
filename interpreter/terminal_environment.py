"""How a terminal takes part in its session's environment, at each prompt.

Its bash is the user's own, so nothing is typed into it. In a directory that the box sees read-only
lie `version` and `changes`, a script that brings the terminal up to date, and the FIFO `report`.
Before a prompt bash reports its `state`, reads `version`, and when that has moved sources
`changes` and reports again what it has `told`: had from us, not changed itself.

A change is applied only where the terminal still has the value it last reported, so what the user
has just changed there wins over what others changed before.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from interpreter.declarations import parse, quote
from interpreter.descriptors import Reader, handing
from interpreter.environment import difference, shareable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from interpreter.environment import Environment

BEGIN, END = b"\0cellshell\0", b"\0end\0"
REPORT_FIELDS = 4
MOST_AT_ONCE = 8
MOST_REPORT_BYTES = 8 * 1024 * 1024
MOST_CWD_BYTES = 4096
REMEMBERED = 16
"""Of so many scripts it is known what they brought; the terminal confirms one within a prompt."""
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Variables and working directory, as one side has them."""

    variables: Mapping[str, str]
    cwd: str


class Report(NamedTuple):
    kind: str
    version: int
    place: Place


class Reports:
    """Cuts what comes from the FIFO into reports; anything may come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Report]:
        self._rest += data
        if b"\0" not in data and len(self._rest) <= MOST_REPORT_BYTES:
            return []
        noise, *begun = self._rest.split(BEGIN)
        found = [body for text in begun[-MOST_AT_ONCE:] for body in _whole(text)]
        if begun and not _whole(begun[-1]):
            self._rest = BEGIN + begun[-1]
        else:
            self._rest = (begun[-1] if begun else noise)[-len(BEGIN) :]
        if len(self._rest) > MOST_REPORT_BYTES:
            self._rest = b""
        return [report for body in found if (report := _report(body))]


class TerminalEnvironment:
    """The service's side, for one terminal."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        """`directory` is the host's side of what bash knows as `CELLSHELL_TERMINAL`."""
        self._environment = environment
        self._directory = directory
        self._base = Place(dict(environment.variables), environment.cwd)
        self._told: Place | None = None
        self._body = b""
        self._version = 0
        self._brought: deque[tuple[int, Place]] = deque(maxlen=REMEMBERED)

    def open(self) -> None:
        """Start afresh, with the environment as it is now, which bash is started with."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        for directory in (self._directory, self._directory.parent):
            directory.chmod(0o755)
        fifo = self._directory / "report"
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        self._publish(b"")
        self._attach()

    def reopen(self) -> None:
        """Go on in a new service: the next report of the terminal says where it stands."""
        self._version = int((self._directory / "version").read_text())
        self._attach()

    def catch_up(self) -> None:
        """Take in what has been reported: before anybody sees the prompt that follows it."""
        self._reader.catch_up()

    def close(self) -> None:
        self._unsubscribe()
        self._reader.close()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _attach(self) -> None:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._directory / "report", flags)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(self._directory / "report")
        reports = Reports()
        self._reader = Reader(fd, handing(lambda data: self._take(reports.feed(data))))
        self._unsubscribe = self._environment.subscribe(self._update)

    def _take(self, reports: list[Report]) -> None:
        for kind, version, place in reports:
            before, self._told = self._told, place
            if kind == "told":
                self._confirmed(version)
            elif before is not None:
                self._merge(before, place)
            self._update()

    def _merge(self, before: Place, after: Place) -> None:
        """What the user has changed since the last report is the session's now."""
        changes = difference(before.variables, after.variables)
        cwd = after.cwd if after.cwd != before.cwd and after.cwd.startswith("/") else None
        changes, _ = self._environment.fitting(changes)
        if changes or cwd:
            self._environment.merge(changes, cwd)

    def _confirmed(self, version: int) -> None:
        for number, place in self._brought:
            if number == version:
                self._base = place
                if number == self._version:
                    self._body = b""

    def _update(self) -> None:
        """After any change: what is the terminal to take over at its next prompt?"""
        if self._told is None:
            return
        changes, cwd = self._pending(self._told)
        body = environment_script(changes, expected=self._told.variables)
        if cwd:
            body += directory_script(cwd, expected=self._told.cwd)
        if body != self._body:
            self._publish(body)

    def _pending(self, told: Place) -> tuple[dict[str, str | None], str | None]:
        """What others changed since the terminal was last up to date and it does not have yet.

        What the terminal has of its own, from its rc files, stays until somebody changes that name.
        """
        changes = difference(self._base.variables, self._environment.variables)
        wanted = {name: new for name, new in changes.items() if told.variables.get(name) != new}
        settled = {name: changes[name] for name in changes.keys() - wanted.keys()}
        base = {**self._base.variables, **settled}
        cwd = self._environment.cwd
        moved = cwd not in (self._base.cwd, told.cwd)
        self._base = Place(
            {name: value for name, value in base.items() if value is not None},
            self._base.cwd if moved else cwd,
        )
        return wanted, cwd if moved else None

    def _publish(self, body: bytes) -> None:
        version = self._version + 1 if body or self._body else self._version
        try:
            self._write("changes", body + b"__cellshell_version=%d\n" % version)
            self._write("version", b"%d\n" % version)
        except OSError as error:
            _log.warning("a terminal is not told what changed: %s", error.strerror)
            return
        self._version, self._body = version, body
        environment = self._environment
        self._brought.append((version, Place(dict(environment.variables), environment.cwd)))

    def _write(self, name: str, data: bytes) -> None:
        fresh = self._directory / f"{name}.new"
        fresh.write_bytes(data)
        fresh.chmod(0o644)
        fresh.rename(self._directory / name)


def environment_script(
    changes: Mapping[str, str | None], *, expected: Mapping[str, str] | None = None
) -> bytes:
    """Lines for bash that set and unset variables to exactly these values.

    With `expected`, each is left alone where bash no longer has the value it is expected to have.
    Names that bash cannot have are left out; what is read-only there stays as it is.
    """
    lines = []
    for name, value in changes.items():
        if not shareable(name):
            continue
        may = f"${{{name}+${{{name}@a}}}} != *r*"
        if expected is not None:
            may += f" && ( {_is(name, expected.get(name))} )"
        change = f"unset -v {name}" if value is None else f"export {name}={quote(value)}"
        lines.append(f"if [[ {may} ]]; then builtin {change} || [[ 1 ]]; fi\n")
    return _encode("".join(lines))


def directory_script(path: str, *, expected: str) -> bytes:
    return _encode(
        f"if [[ $PWD == {quote(expected)} ]]; then builtin cd -- {quote(path)} || [[ 1 ]]; fi\n"
    )


def _is(name: str, value: str | None) -> str:
    if value is None:
        return f"! -v {name} || ${{{name}@a}} != *x*"
    return f"${{{name}-}} == {quote(value)}"


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _whole(text: bytes) -> list[bytes]:
    body, end, _ = text.partition(END)
    return [body] if end else []


def _report(body: bytes) -> Report | None:
    fields = body.split(b"\0", 4)
    if len(fields) != REPORT_FIELDS:
        return None
    kind, version, cwd, exports = fields
    if kind not in (b"state", b"told") or not version.isdigit() or len(version) > 18:
        return None
    if len(cwd) > MOST_CWD_BYTES:
        return None
    variables = {name: value for name, value in parse(exports).items() if shareable(name)}
    return Report(kind.decode(), int(version), Place(variables, os.fsdecode(cwd)))
