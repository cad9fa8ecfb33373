"""Reads what bash's `export -p` writes, and writes words that bash reads back exactly."""

from __future__ import annotations

import os
import re

_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"E": b"\x1b", b"f": b"\f", b"n": b"\n",
    b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\", b"'": b"'", b'"': b'"', b"?": b"?",
}  # fmt: skip
_DECLARATION = re.compile(
    rb"(?:declare -[A-Za-z]+|export) ([A-Za-z_][A-Za-z0-9_]*)"
    rb"(?:=(?:\"((?:[^\"\\]|\\.)*)\"|\$'((?:[^'\\]|\\.)*)'|([^\s\"$']*)))?\n",
    re.DOTALL,
)
_DOUBLE = re.compile(rb"\\([\\\"$`\n])")
_ANSI = re.compile(
    rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|c(.)|(.))",
    re.DOTALL,
)


def parse(text: bytes) -> dict[str, str]:
    """Exported names and values; names exported without a value are left out.

    Understands both forms of a value bash uses: `"..."` and `$'...'`. Bytes that are not UTF-8
    come back as surrogates, as in `os.environ`. What is not a declaration is skipped.
    """
    found = {}
    for match in _DECLARATION.finditer(text):
        name, double, ansi, plain = match.groups()
        if double is not None:
            value = _DOUBLE.sub(lambda m: b"" if m[1] == b"\n" else m[1], double)
        elif ansi is not None:
            value = _ANSI.sub(_unescape, ansi)
        elif plain is not None:
            value = plain
        else:
            continue
        found[name.decode()] = os.fsdecode(value)
    return found


def quote(value: str) -> str:
    """One bash word that stands for exactly `value`."""
    return "'" + value.replace("'", "'\\''") + "'"


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, control, plain = match.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if short or long:
        return chr(min(int(short or long, 16), 0x10FFFF)).encode("utf-8", "surrogatepass")
    if control:
        return bytes([control[0] & 0x1F])
    return _ESCAPES.get(plain, b"\\" + plain)
