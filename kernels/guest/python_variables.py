"""What the user's names hold, told without running any code of theirs.

Types are compared by identity and only known ones are looked into: a metaclass may bring its own
`__eq__`, `__hash__` and `__name__`. Loaded by path inside the kernel's process: nothing beside the
standard library may be imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

MAX_VARIABLES = 2000
MAX_PREVIEW = 200
MAX_ITEMS = 12
MAX_DEPTH = 3
SCALARS = (bool, float, complex, type(None), type(Ellipsis), range)
BRACKETS = {id(list): "[]", id(tuple): "()", id(set): "{}", id(frozenset): "{}", id(dict): "{}"}
SIZED = {id(kind) for kind in (*SCALARS, int, str, bytes, bytearray)} | BRACKETS.keys()
SHAPED = (("numpy", "ndarray"), ("pandas", "DataFrame"), ("pandas", "Series"))


def describe(names: Mapping[str, Any], hidden: Iterable[str]) -> list[dict[str, Any]]:
    """One entry for each of the user's names, in the order they were made."""
    hidden = set(hidden)
    shown = [(n, v) for n, v in list(names.items()) if _is_shown(n, v) and n not in hidden]
    return [_variable(name, value) for name, value in shown[:MAX_VARIABLES]]


def _is_shown(name: object, value: object) -> bool:
    return type(name) is str and not name.startswith("_") and type(value) is not ModuleType


def _variable(name: str, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name[:MAX_PREVIEW],
        "type": _name(type(value))[:MAX_PREVIEW],
        "preview": preview(value)[: MAX_PREVIEW + 3],
    }
    library = _library(type(value))
    if library:
        found["shape"] = [int(length) for length in value.shape]
    if id(type(value)) in SIZED:
        found["size_bytes"] = sys.getsizeof(value)
    elif library == "numpy":
        found["size_bytes"] = int(value.nbytes)
    return found


def preview(value: Any, depth: int = 0) -> str:
    """Like `repr`, bounded, and of known types only."""
    kind = type(value)
    if any(kind is scalar for scalar in SCALARS):
        return repr(value)
    if kind is int:
        return repr(value) if value.bit_length() < 512 else f"<int of {value.bit_length()} bits>"
    if kind is str or kind is bytes:
        return _cut(repr(value[:MAX_PREVIEW]), len(value) > MAX_PREVIEW)
    if id(kind) in BRACKETS:
        return _container(value, kind, depth)
    if kind is FunctionType or kind is BuiltinFunctionType:
        return f"<function {value.__name__}>"
    if issubclass(kind, type):
        return f"<class {_name(value)}>"
    return _outline(value, kind)


def _container(value: Any, kind: type, depth: int) -> str:
    if depth >= MAX_DEPTH:
        return f"<{kind.__name__} of {len(value)}>"
    first = list(islice(value.items() if kind is dict else value, MAX_ITEMS))
    if kind is dict:
        parts = [f"{preview(key, depth + 1)}: {preview(item, depth + 1)}" for key, item in first]
    else:
        parts = [preview(item, depth + 1) for item in first]
    if len(value) > MAX_ITEMS:
        parts.append("...")
    comma = "," if kind is tuple and len(parts) == 1 else ""
    brackets = BRACKETS[id(kind)]
    text = f"{brackets[0]}{', '.join(parts)}{comma}{brackets[1]}"
    return _cut(text[:MAX_PREVIEW], len(text) > MAX_PREVIEW)


def _outline(value: Any, kind: type) -> str:
    library = _library(kind)
    if not library:
        return f"<{_name(kind)} object>"
    shape = tuple(int(length) for length in value.shape)
    if _name(kind) == "DataFrame":
        return f"{shape[0]} rows x {shape[1]} columns"
    return f"{_name(kind)} of {value.dtype.name}, shape {shape}"


def _library(kind: type) -> str | None:
    """The library whose shaped type this is, by identity: a name alone anybody can take."""
    for library, name in SHAPED:
        module = sys.modules.get(library)
        if type(module) is ModuleType and module.__dict__.get(name) is kind:
            return library
    return None


def _name(kind: type) -> str:
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def _cut(text: str, more: bool) -> str:
    return f"{text}..." if more else text
