"""JSON bodies: read within bounds, and parsed strictly."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from starlette.requests import Request

from interpreter.errors import InvalidRequest, TooLarge

MAX_BODY_BYTES = 16 * 1024 * 1024
INLINE_BYTES = 256 * 1024
"""A longer body is parsed in a thread, so that other calls go on meanwhile."""
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


async def read_bounded(request: Request) -> bytes:
    """The whole body, refused while it is read when it is longer than a JSON call may be."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
        _too_large()
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            _too_large()
        pieces.append(piece)
    return b"".join(pieces)


async def parse(body: bytes) -> Any:
    """The value of a JSON body."""
    if len(body) > INLINE_BYTES:
        return await asyncio.to_thread(decode, body)
    return decode(body)


def decode(body: bytes) -> Any:
    """Parse JSON, refusing what JSON or the next program to read it does not agree on."""
    try:
        text = body.decode("utf-8-sig")
        value = DECODER.decode(text)
        if SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"expected JSON, got a body that is not: {error.msg} at character {error.pos}",
            position=error.pos,
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"expected JSON in UTF-8: byte {error.start} is not") from None
    except UnicodeEncodeError:
        raise InvalidRequest(
            "expected valid Unicode, got an escape of half a surrogate pair"
        ) from None
    except RecursionError:
        raise InvalidRequest("expected JSON with less nesting") from None
    return value


def _too_large() -> NoReturn:
    raise TooLarge(
        f"expected a JSON body of {MAX_BODY_BYTES} bytes at most; "
        "larger data goes through PUT files/content",
        limit=MAX_BODY_BYTES,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"expected each name once in an object, got {twice!r:.80} twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise InvalidRequest(f"expected integers of 64 bits at most, got {digits[:30]}")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidRequest(f"expected a number within range, got {digits[:30]}")
    return value


def _constant(name: str) -> NoReturn:
    raise InvalidRequest(f"expected JSON, got {name}, which JSON does not have")


DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
