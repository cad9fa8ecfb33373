"""The types of fields in requests: what the schema alone can refuse, it refuses here.

This is the one place where ids are checked.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from interpreter.allowed_host import AllowedHost

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
MAX_VALUE_BYTES = 128 * 1024 - 256
"""Linux refuses to start a program with one string beyond 128 KiB in its environment."""
KEPT_BY_BASH = frozenset(
    (
        *("_", "SHLVL", "PWD", "OLDPWD", "PPID", "UID", "EUID", "POSIXLY_CORRECT"),
        *("SHELLOPTS", "BASHOPTS", "BASHPID", "BASH_VERSINFO"),
    )
)
"""Names whose value bash gives, whatever it was started with. A working directory is `cwd`."""
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
DEFAULT_OUTPUT_BYTES = 1024 * 1024
MAX_HOSTS = 1000


def clean_text(value: str) -> str:
    """Text that Linux and UTF-8 can hold."""
    if "\0" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode: it contains a lone surrogate") from None
    return value


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is not a variable name: expected [A-Za-z_][A-Za-z0-9_]*")
    if value in KEPT_BY_BASH:
        raise ValueError(f"{value} is set by the shell itself and cannot be given")
    return value


def _variable_value(value: str) -> str:
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ValueError(f"a value may have {MAX_VALUE_BYTES} bytes at most")
    return value


def _allowed_host(value: str) -> str:
    return str(AllowedHost.parse(value))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Text = Annotated[str, AfterValidator(clean_text)]
Id = Annotated[
    str, StringConstraints(pattern=ID_PATTERN), Field(examples=["user-123"], max_length=63)
]
Path = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(clean_text)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
VariableValue = Annotated[str, AfterValidator(clean_text), AfterValidator(_variable_value)]
Variables = dict[VariableName, VariableValue]
VariableChanges = dict[VariableName, VariableValue | None]
"""Names to values; null unsets."""
Number = Annotated[float, Field(strict=True), AfterValidator(_finite)]
Timeout = Annotated[Number, Field(gt=0, le=31 * 86400)]
OutputLimit = Annotated[int, Field(ge=1, le=MAX_OUTPUT_BYTES, strict=True)]
Mode = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{1,4}$")]


class AllowList(BaseModel):
    """The hosts a sandbox may reach."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    allow: Annotated[
        list[Annotated[str, AfterValidator(_allowed_host)]], Field(max_length=MAX_HOSTS)
    ]
    """Hosts, or `*.example.com` for all names below one; for ports 80 and 443, or `host:port`."""


def _network_kind(value: Any) -> str:
    return "[list]" if isinstance(value, dict | AllowList) else "[name]"


Network = Annotated[
    Annotated[Literal["none", "open"], Tag("[name]")] | Annotated[AllowList, Tag("[list]")],
    Discriminator(_network_kind),
]
