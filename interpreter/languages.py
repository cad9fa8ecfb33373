"""Languages whose kernels run nothing of ours take part in the environment by silent requests.

Around each cell two go out in the same pipeline: one that applies what changed, only when
something did, and one that reports working directory and variables. Both are self-contained
expressions that leave no name behind; values travel as data. The report comes back as one
`display_data` whose bundle has `MIME`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIME = "application/vnd.cellshell.environment+json"
MAX_REPORT = 16 * 1024 * 1024
"""Longest report read, in characters; Linux itself limits an environment it starts to less."""


@dataclass(frozen=True)
class Report:
    """What a kernel says it has. `cwd` is None when its directory is gone."""

    cwd: str | None
    env: Mapping[str, str]


class Adapter(Protocol):
    """How one language changes and reports its environment."""

    def before(self, changes: Mapping[str, str | None], cwd: str | None) -> str | None:
        """Code that applies the changes (None unsets); None when there are none.

        Instead of a `cwd` that cannot be entered, the nearest parent that can is taken, and
        displayed for `entered`; of one entered through symbolic links the path is, for `real`.
        """

    def after(self) -> str:
        """Code that displays one report."""

    def parse(self, data: object) -> Report | None:
        """The report in what a display has under `MIME`; None when it cannot be read."""

    def entered(self, data: object) -> str | None:
        """The directory taken instead of a missing one, if that is what was displayed."""

    def real(self, data: object) -> str | None:
        """Another name of the directory asked for, if that is what was displayed."""

    def holds(self, name: str, value: str | None) -> bool:
        """Whether the language can have that variable; if not, `before` leaves it out."""


class Deno:
    """JavaScript and TypeScript. Strings are Unicode: other bytes cannot be set."""

    def before(self, changes: Mapping[str, str | None], cwd: str | None) -> str | None:
        data = [[name, value] for name, value in changes.items() if self.holds(name, value)]
        if not data and cwd is None:
            return None
        directories = [path if _is_unicode(path) else None for path in _upwards(cwd)]
        return self._call(
            "for (const [name, value] of env) try {"
            " value === null ? Deno.env.delete(name) : Deno.env.set(name, value);"
            " } catch {}"
            " const entered = directories.find((path) => {"
            " try { Deno.chdir(path); return true; } catch { return false; } });"
            " const path = entered === undefined ? undefined : Deno.cwd();"
            " if (entered !== directories[0]) await report({ entered: path });"
            " else if (entered !== path) await report({ real: path });",
            data,
            directories,
        )

    def after(self) -> str:
        return self._call(
            "let cwd = null; try { cwd = Deno.cwd(); } catch {}"
            " await report({ cwd, env: Deno.env.toObject() });"
        )

    def parse(self, data: object) -> Report | None:
        found = _document(data)
        return None if found is None else _report(found.get("cwd"), found.get("env"))

    def entered(self, data: object) -> str | None:
        return self._path(data, "entered")

    def real(self, data: object) -> str | None:
        return self._path(data, "real")

    def _path(self, data: object, key: str) -> str | None:
        path = (_document(data) or {}).get(key)
        return path if isinstance(path, str) and _is_directory(path) else None

    def holds(self, name: str, value: str | None) -> bool:
        return _is_unicode(name) and (value is None or _is_unicode(value))

    def _call(self, body: str, env: object = None, directories: object = None) -> str:
        """A call of a function that has our names as parameters, so that none is left behind."""
        return (
            "await (async ({ Deno, JSON }, env, directories) => {"
            " const report = (found) => Deno.jupyter.broadcast('display_data', {"
            f" data: {{ '{MIME}': JSON.stringify(found) }}, metadata: {{}}, transient: {{}} }});"
            f" {body} }})(globalThis, {json.dumps(env)}, {json.dumps(directories)})"
        )


class R:
    """R. Everything travels as hexadecimal bytes, since R's strings depend on its locale."""

    def before(self, changes: Mapping[str, str | None], cwd: str | None) -> str | None:
        if not changes and cwd is None:
            return None
        steps = [
            f'drop("{_hex(name)}")' if value is None else f'put("{_hex(name)}", "{_hex(value)}")'
            for name, value in changes.items()
        ]
        directories = [f'"{_hex(path)}"' for path in _upwards(cwd)]
        if directories:
            steps.append(f"enter(c({', '.join(directories)}))")
        return self._eval(*R_APPLY, *steps)

    def after(self) -> str:
        return self._eval(
            "cwd <- tryCatch(getwd(), error = function(e) NULL)",
            "entries <- .Internal(Sys.getenv(character(), ''))",
            "entries <- entries[grepl('.=', entries, useBytes = TRUE)]",
            "cwd <- if (is.null(cwd)) 'null' else quoted(charToRaw(cwd))",
            "env <- paste(vapply(entries, pair, '', USE.NAMES = FALSE), collapse = ',')",
            """report(paste0('{"cwd":', cwd, ',"env":{', env, '}}'))""",
        )

    def parse(self, data: object) -> Report | None:
        found = _document(data)
        env = None if found is None else found.get("env")
        if found is None or not isinstance(env, dict):
            return None
        try:
            cwd = None if found.get("cwd") is None else _unhex(found["cwd"])
            return _report(cwd, {_unhex(name): _unhex(value) for name, value in env.items()})
        except (TypeError, ValueError):
            return None

    def entered(self, data: object) -> str | None:
        return self._path(data, "entered")

    def real(self, data: object) -> str | None:
        return self._path(data, "real")

    def _path(self, data: object, key: str) -> str | None:
        try:
            path = _unhex((_document(data) or {}).get(key))
        except (TypeError, ValueError):
            return None
        return path if _is_directory(path) else None

    def holds(self, name: str, value: str | None) -> bool:
        return True

    def _eval(self, *lines: str) -> str:
        """Evaluated in an environment that sees base alone, whatever the user has named."""
        body = "\n".join((*R_REPORT, *lines))
        return f"base::eval(base::quote({{\n{body}\n}}), base::new.env(parent = base::baseenv()))"


R_REPORT = (
    "quoted <- function(raw) paste0('\"', paste(as.character(raw), collapse = ''), '\"')",
    "pair <- function(entry) {",
    "  raw <- charToRaw(entry)",
    "  at <- match(as.raw(61L), raw)",
    "  paste0(quoted(head(raw, at - 1L)), ':', quoted(tail(raw, -at)))",
    "}",
    "head <- utils::head",
    "tail <- utils::tail",
    "report <- function(json) {",
    f"  IRdisplay::publish_mimebundle(structure(list(json), names = '{MIME}'))",
    "}",
)
R_APPLY = (
    "text <- function(hex) {",
    "  if (hex == '') return('')",
    "  at <- seq.int(1L, nchar(hex), 2L)",
    "  rawToChar(as.raw(strtoi(substring(hex, at, at + 1L), 16L)))",
    "}",
    "attempt <- function(step) tryCatch({ step; TRUE }, error = function(e) FALSE)",
    "put <- function(name, value)",
    "  attempt(do.call(Sys.setenv, structure(list(text(value)), names = text(name))))",
    "drop <- function(name) attempt(Sys.unsetenv(text(name)))",
    "enter <- function(paths) for (path in paths) if (attempt(setwd(text(path)))) {",
    "  at <- quoted(charToRaw(getwd()))",
    "  key <- if (path == paths[1L]) 'real' else 'entered'",
    """  if (at != paste0('"', paths[1L], '"')) report(paste0('{"', key, '":', at, '}'))""",
    "  break",
    "}",
)


def adapter_for(language: str) -> Adapter | None:
    """The adapter of a language; None: its kernels do not share the environment."""
    adapters: dict[str, type[Adapter]] = {"javascript": Deno, "typescript": Deno, "r": R}
    adapter = adapters.get(language)
    return adapter() if adapter else None


def _document(data: object) -> dict[str, object] | None:
    if not isinstance(data, str) or len(data) > MAX_REPORT:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _report(cwd: object, env: object) -> Report | None:
    if not isinstance(env, dict) or not all(_is_pair(k, v) for k, v in env.items()):
        return None
    if cwd is None or (isinstance(cwd, str) and _is_directory(cwd)):
        return Report(cwd, env)
    return None


def _is_directory(path: str) -> bool:
    return path.startswith("/") and _is_pair("path", path)


def _is_pair(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str) or not name:
        return False
    try:
        (name + value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "=" not in name and "\0" not in name + value


def _upwards(path: str | None) -> Iterator[str]:
    while path is not None:
        yield path
        path = None if path == os.path.dirname(path) else os.path.dirname(path)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _hex(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").hex()


def _unhex(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("expected hexadecimal digits")
    return bytes.fromhex(text).decode("utf-8", "surrogateescape")
