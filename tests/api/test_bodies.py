from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from api.bodies import MAX_BODY_BYTES, decode, parse, read_bounded
from interpreter.errors import InvalidRequest, TooLarge


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, -2.5, null, true]}', {"a": [1, -2.5, None, True]}),
        (b'\xef\xbb\xbf{"bom": 1}', {"bom": 1}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
    ],
)
def test_json_is_parsed(body: bytes, value: Any) -> None:
    assert decode(body) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{bad", "character 1"),
        (b"", "character 0"),
        (b"{} {}", "Extra data"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "range"),
        (b"9223372036854775808", "64 bits"),
        (b"1" * 5000, "64 bits"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"x": {"a": 1, "b": 0, "b": 2}}', "'b' twice"),
        (b"[" * 100_000, "nesting"),
        (b'{"a":' * 100_000, "nesting"),
    ],
)
def test_what_is_not_json_for_everybody_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        decode(body)
    assert len(caught.value.message) < 200


async def test_a_long_body_is_parsed_too() -> None:
    assert await parse(b'"' + b"x" * 300_000 + b'"') == "x" * 300_000


def incoming(pieces: int, **headers: str) -> tuple[Request, list[int]]:
    """A request of MiB pieces, and how many of them were asked for."""
    asked: list[int] = []

    async def receive() -> dict[str, Any]:
        asked.append(1)
        more = len(asked) < pieces
        return {"type": "http.request", "body": bytes(1024 * 1024), "more_body": more}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive), asked


async def test_a_body_up_to_the_limit_is_read() -> None:
    request, _ = incoming(16)
    assert len(await read_bounded(request)) == MAX_BODY_BYTES


async def test_a_longer_body_is_refused_while_it_is_read() -> None:
    request, asked = incoming(1000)
    with pytest.raises(TooLarge):
        await read_bounded(request)
    assert len(asked) == 17


async def test_a_declared_length_is_refused_unread() -> None:
    request, asked = incoming(1000, content_length=str(MAX_BODY_BYTES + 1))
    with pytest.raises(TooLarge):
        await read_bounded(request)
    assert not asked
