"""The lines a session's bash is driven by.

bash has been given functions and aliases by its user that may have any name, `cd`, `eval` and
`builtin` included. Three things cannot be taken over: reserved words, expansions, and, while bash
is in POSIX mode, the special builtins (`.`, `export`, `unset`, `eval`...), which are then looked
up before functions. Assigning POSIXLY_CORRECT turns that mode on without any look-up. So each step
of ours turns it on, uses special builtins only, each behind a backslash against aliases, and turns
it off before the user's command, which is sourced from a file: never part of these lines.

Two shell options that POSIX mode changes are put back before the command: `inherit_errexit` and
`expand_aliases`. What a user's DEBUG trap or `set -x` can see of ours is said in docs/shell.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from interpreter.declarations import parse, quote

ARGV = [
    "bash",
    "--noprofile",
    "--norc",
    "--login",
    "--noediting",
    "-i",
    "+H",
    "+o",
    "history",
    "-s",
]
"""Interactive, since only then an interrupt ends a command and not the shell; a login shell, since
only then `exit` reads a file in which the last changes can be reported."""

GONE, LAST = "gone", "last"
_ASIDE = "__cellshell_aside"

FIRST = "PS1= PS2=; POSIXLY_CORRECT=y; \\set +o history; \\unset HISTFILE POSIXLY_CORRECT\n"
"""No prompts, and no history, which would keep the lines below."""


def report(path: str, *, unable: str = "\\exit") -> str:
    """Writes status, options, directory and all exported variables to the report pipe.

    A shell whose user has made our one variable read-only, or an integer, could never report again:
    it exits instead. `case` leaves `$?` as it is.
    """
    return (
        f"case ${{POSIXLY_CORRECT+${{POSIXLY_CORRECT@a}}}} in *[!x]*) {unable};; *) "
        'POSIXLY_CORRECT="${POSIXLY_CORRECT-}:$?:$-:$BASHOPTS:${PWD-}"; \\export POSIXLY_CORRECT; '
        f"\\export -p >{path}; \\unset POSIXLY_CORRECT;; esac"
    )


def logout(run: str) -> str:
    """What a session's bash reads when it exits: its last report."""
    path = f"{run}/shell/$$/report"
    last = report(path, unable="[[ 1 ]]")
    return f"if [[ -p {path} ]]; then POSIXLY_CORRECT={LAST}; {last}; fi\n"


def change_directory(path: str) -> str:
    """`cd`, also where `cd` and `builtin` are functions of the user's.

    A function called `builtin` is kept aside, printed by a subshell in which nothing is overridden.
    """
    return (
        "POSIXLY_CORRECT=y; "
        "POSIXLY_CORRECT=$(\\unset -f declare; \\declare -f builtin) || [[ 1 ]]; "
        f"\\unset -f builtin; \\builtin cd -- {quote(path)} || [[ 1 ]]; "
        '\\eval "$POSIXLY_CORRECT"; \\unset POSIXLY_CORRECT\n'
    )


def change_variables(changes: Mapping[str, str | None]) -> str:
    """Exports and unsets; what the user made read-only stays as it is."""
    if not changes:
        return ""
    lines = ["POSIXLY_CORRECT=y"]
    for name, value in changes.items():
        export = f"; \\export {name}={quote(value)}" if value is not None else ""
        lines.append(f"[[ ${{{name}+${{{name}@a}}}} == *r* ]] || {{ \\unset -v {name}{export}; }}")
    return "\n".join([*lines, "\\unset POSIXLY_CORRECT\n"])


def put_aside(names: Iterable[str]) -> str:
    """Remember variables that one call's own are about to cover, exported or not.

    The variable that holds them lives until `put_back`, after the command.
    """
    lines = [
        f'case ${{{name}[@]+x}} in x) {_ASIDE}="${{{_ASIDE}-}}${{{name}[@]@A}};";; esac'
        for name in sorted(names)
    ]
    if not lines:
        return ""
    lines.append(f"\\export -n {_ASIDE}; \\unset POSIXLY_CORRECT\n")
    return "\n".join([f"POSIXLY_CORRECT=y; \\unset -v {_ASIDE}", *lines])


def put_back(names: Iterable[str]) -> str:
    removed = change_variables(dict.fromkeys(sorted(names)))
    if not removed:
        return ""
    again = f'\\eval "${{{_ASIDE}-}}"; \\unset -v {_ASIDE} POSIXLY_CORRECT'
    return f"{removed}POSIXLY_CORRECT=y; {again}\n"


def forget_previous_directory(path: str | None) -> str:
    """After a `cd` of ours: `cd -` leads where the user last was."""
    if path is None:
        # Marked as exported, as bash itself does: so the report tells it once there is one.
        return "POSIXLY_CORRECT=y; \\unset OLDPWD; \\export OLDPWD; \\unset POSIXLY_CORRECT\n"
    return f"OLDPWD={quote(path)}\n"


def preamble(*, status: int, posix: bool, aliases: bool, inherit_errexit: bool) -> bytes:
    """First line of the sourced file: leave POSIX mode, put options back, restore `$?`."""
    words = [] if inherit_errexit else [_without_inherit_errexit()]
    words.append("[[ 1 ]]" if posix else "\\unset POSIXLY_CORRECT")
    if not aliases:
        words.append("\\shopt -u expand_aliases &>/dev/null")
    if status == 1:
        words.append("((0)) && ((1))")
    elif status:
        words.append(f"(POSIXLY_CORRECT=y; \\exit {status}) && ((1))")
    hidden_from_set_x = "{ " + "; ".join(words) + "; } 2>/dev/null\n"
    return hidden_from_set_x.encode()


def _without_inherit_errexit() -> str:
    """`shopt -u`, also where `shopt` is a function: only then can `export -f` name it."""
    shopt = "\\shopt -u inherit_errexit"
    return (
        "if \\export -f shopt; then \\export -nf shopt; "
        "POSIXLY_CORRECT=$(\\unset -f declare; \\declare -f shopt); "
        f'\\unset -f shopt; {shopt}; \\eval "$POSIXLY_CORRECT"; else {shopt}; fi'
    )


def source(path: str) -> str:
    """A file of ours, for what is more than one write to a pipe can hold."""
    return f"POSIXLY_CORRECT=y; \\. {path}\n"


def run(directory: str, number: int, *, cwd: str, stdin: str) -> str:
    """Source the command unless bash is not where it is to be: the directory is gone, is another
    one now, or cannot be entered. Then, on a line of its own since an interrupt discards the line
    it meets, report."""
    out, err = f"{directory}/{number}.out", f"{directory}/{number}.err"
    return (
        f"if [[ . -ef {quote(cwd)} ]]; then POSIXLY_CORRECT=y; "
        f"\\. {directory}/command <{stdin} >{out} 2>{err}; else POSIXLY_CORRECT={GONE}; fi\n"
        f"{report(f'{directory}/report')}\n"
    )


@dataclass(frozen=True)
class Report:
    """What bash said after a command."""

    gone: bool
    """Nothing ran: the working directory does not exist any more."""
    status: int
    posix: bool
    aliases: bool
    inherit_errexit: bool
    cwd: str
    exported: Mapping[str, str]


UNKNOWN = Report(False, 0, False, True, False, "", {})
"""Of a bash that has not said anything."""


def is_last(text: bytes | bytearray) -> bool:
    """Whether the shell reported because it exits."""
    return b'POSIXLY_CORRECT="last:' in text


def read_report(text: bytes) -> Report | None:
    """None when the report is not one: the user's shell broke it, or it was cut short."""
    exported = parse(text)
    state = exported.pop("POSIXLY_CORRECT", "")
    parts = state.split(":", 3)
    if len(parts) < 4 or not parts[1].isdigit():
        return None
    mode, status, _, rest = parts
    options, cwd = _split_options(rest)
    return Report(
        gone=mode == GONE,
        status=int(status),
        posix=mode not in ("", GONE, LAST),
        aliases="expand_aliases" in options,
        inherit_errexit="inherit_errexit" in options,
        cwd=cwd,
        exported=exported,
    )


def _split_options(text: str) -> tuple[set[str], str]:
    """`a:b:c:/the/directory`: option names hold no slash, and a directory starts with one."""
    options, slash, path = text.partition("/")
    return set(options.split(":")), slash + path
