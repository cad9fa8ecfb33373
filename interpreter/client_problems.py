"""From what the service answered, or did not answer, to the error that the client raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from interpreter.errors import BY_CODE, CellshellError, InvalidRequest, ServiceUnreachable
from interpreter.fields import ID_PATTERN

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

MEMBERS = {"type", "title", "status", "code", "detail", "instance"}
"""What every problem document has; the rest are an error's `details`."""


def problem(document: Mapping[str, Any], status: int | None = None) -> CellshellError:
    """The error a problem document stands for: its class by `code`, or `CellshellError`."""
    code = document.get("code")
    kind = BY_CODE.get(code, CellshellError) if isinstance(code, str) else CellshellError
    error = kind(str(document.get("detail") or document.get("title") or "no reason was given"))
    error.code = code if isinstance(code, str) else "unexpected_answer"
    stated = document.get("status", status)
    error.status = stated if isinstance(stated, int) else error.status
    error.details = {name: value for name, value in document.items() if name not in MEMBERS}
    return error


def raise_for(response: httpx.Response) -> None:
    """Raises what a read response with an error status means."""
    if response.is_success:
        return
    document = _document(response)
    if document is None:
        raise unexpected(response)
    error = problem(document, response.status_code)
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdecimal():
        error.details.setdefault("retry_after", float(retry_after))
    raise error


def unexpected(response: httpx.Response) -> CellshellError:
    """For an answer no Cellshell service gives."""
    kind = response.headers.get("content-type", "no content type")
    origin = response.url.copy_with(path="/", query=None, fragment=None)
    error = CellshellError(
        f"expected an answer of a Cellshell service at {origin}, got status "
        f"{response.status_code} with {kind}: is that its address?"
    )
    error.code, error.status = "unexpected_answer", response.status_code
    return error


def unreachable(error: httpx.RequestError, base_url: str) -> ServiceUnreachable:
    """For a service that does not answer, or stopped in the middle of an answer."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        advice = "is it running (`cellshell serve`), and is that its address?"
    else:
        advice = "give the call an `id` to make it safe to repeat"
    return ServiceUnreachable(f"expected an answer from {base_url}, got none ({reason}): {advice}")


def parse(model: type[M], response: httpx.Response) -> M:
    """The answer as a model."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise unexpected(response) from None


def parse_list(model: type[M], response: httpx.Response) -> list[M]:
    """The answer as a list of models."""
    try:
        return TypeAdapter(list[model]).validate_json(response.content)  # type: ignore[valid-type]
    except ValidationError:
        raise unexpected(response) from None


def build(model: type[M], **fields: Any) -> M:
    """A request out of the fields that were given; None stands for not given."""
    return check(model, {name: value for name, value in fields.items() if value is not None})


def check(model: type[M], fields: Any) -> M:
    """A request out of these fields; `InvalidRequest` says which one is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        _refuse(error)


def segment(kind: str, id: str) -> str:
    """An id as a part of a URL; refuses what would make it another URL."""
    if not isinstance(id, str) or not re.fullmatch(ID_PATTERN, id):
        raise InvalidRequest(
            f"expected the id of a {kind}: letters, digits, '.', '_' and '-', 63 at most, the "
            f"first a letter or digit; got {id!r:.100}"
        )
    return id


def _refuse(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the request"
    raise InvalidRequest(f"{where}: {first['msg']}") from None


def _document(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "code" in document else None


def parse_object(answer: httpx.Response) -> dict[str, Any]:
    """An answer that has no model: Jupyter's, and notebooks."""
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise unexpected(answer)
    return document
