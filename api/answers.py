"""JSON answers: one place that serialises, and that no name or output can make fail."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from starlette.responses import Response

DEEPEST = 200
"""Nesting beyond it is cut off: the fast serialisers refuse it."""
LONGEST_INTEGER = 1024
"""In bits."""
NOT_A_SCRIPT = (b"x-content-type-options", b"nosniff")
"""Nor a style: a page of another origin that includes it as one gets nothing."""


def answer(
    value: BaseModel | Sequence[BaseModel] | Mapping[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A JSON response of a model, a list of models or a plain mapping."""
    response = Response(encode(value), status, headers, media_type="application/json")
    response.raw_headers.append(NOT_A_SCRIPT)
    return response


def no_content() -> Response:
    """The answer to a call that has nothing to say."""
    return Response(status_code=204)


def encode(value: BaseModel | Sequence[BaseModel] | Mapping[str, Any]) -> bytes:
    """UTF-8 JSON of `value`. Lone surrogates become U+FFFD, numbers JSON has not become null."""
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    if isinstance(value, BaseModel):
        return _encode_model(value)
    return b"[" + b",".join(_encode_model(item) for item in value) + b"]"


def _encode_mapping(value: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_anyhow(value)


def _encode_model(model: BaseModel) -> bytes:
    hidden = {"state"} if getattr(model, "state", "") is None else None
    try:
        return model.__pydantic_serializer__.to_json(model, exclude=hidden)
    except (PydanticSerializationError, ValueError, RecursionError):
        return _encode_anyhow(_fields(model))


def _encode_anyhow(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(_plain(value, 0), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _fields(model: BaseModel) -> dict[str, Any]:
    fields = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    if fields.get("state", "") is None:
        del fields["state"]
    return fields


def _plain(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return "[nested too deeply]"
    match value:
        case str():
            return whole(value)
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= LONGEST_INTEGER else None
        case float():
            return value if math.isfinite(value) else None
        case BaseModel():
            return _plain(_fields(value), depth)
        case Mapping():
            return {whole(str(key)): _plain(item, depth + 1) for key, item in value.items()}
        case Sequence() | set() | frozenset():
            return [_plain(item, depth + 1) for item in value]
        case _:
            return whole(str(value))


def whole(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
