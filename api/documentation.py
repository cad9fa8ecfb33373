"""The OpenAPI document: what every route answers when it cannot do what was asked."""

from __future__ import annotations

import http
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from api.addresses import NAMES
from api.glossary import meaning
from api.problems import MEDIA_TYPE
from interpreter.errors import (
    CellshellError,
    HeadersTooLarge,
    HostRefused,
    InvalidRequest,
    OriginRefused,
    TooLarge,
    Unauthorized,
)
from interpreter.fields import ID_PATTERN
from interpreter.models import Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

EVERYWHERE: tuple[type[CellshellError], ...] = (
    InvalidRequest,
    Unauthorized,
    HostRefused,
    OriginRefused,
    HeadersTooLarge,
)
ID = {"type": "string", "pattern": ID_PATTERN, "maxLength": 63}
SCHEMAS: dict[str, dict[str, Any]] = {
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "ticket": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "path": {"type": "string"},
}
"""Of what is in a path and no id."""
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
PROBLEM = {"$ref": "#/components/schemas/Problem"}
SUMMARY = "A persistent bash shell and Jupyter kernels that share one environment."
DESCRIPTION = """
Code and commands run in **sessions** of **sandboxes**. Times are seconds, sizes bytes, timestamps
RFC 3339 in UTC. Errors are `application/problem+json` (RFC 9457) with a stable `code`; further
members are details. Calls that run something answer JSON, or server-sent events with
`Accept: text/event-stream`. A terminal is a WebSocket at
`/v1/sandboxes/{sandbox}/sessions/{session}/terminal?id=&cols=&rows=`: binary frames are bytes, text
frames JSON (`resize` in; `ready`, `exit`, `error` out).
"""
TAGS = [
    {"name": "sandboxes", "description": "Isolated computers."},
    {"name": "sessions", "description": "A shell, its contexts and the environment they share."},
    {"name": "running", "description": "Commands and code."},
    {"name": "executions", "description": "Runs, by id: results so far, events, cancellation."},
    {"name": "contexts", "description": "Jupyter kernels of a session."},
    {"name": "notebooks", "description": "What a session did, and what it is to do, as `.ipynb`."},
    {"name": "processes", "description": "Background processes of a sandbox."},
    {"name": "files", "description": "Files as the session sees them."},
    {"name": "git", "description": "Repositories."},
    {"name": "network", "description": "What a sandbox reached outside, and what it was denied."},
    {"name": "ports", "description": "What listens in a sandbox."},
    {"name": "service", "description": "The service itself."},
]


def errors(*kinds: type[CellshellError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail in these ways, and as every route may."""
    by_status: dict[int, list[type[CellshellError]]] = defaultdict(list)
    for kind in (*kinds, *EVERYWHERE):
        if kind not in by_status[kind.status]:
            by_status[kind.status].append(kind)
    return {status: _failure(status, found) for status, found in sorted(by_status.items())}


def events(description: str) -> dict[str, Any]:
    """The description of an answer that is an event stream, or JSON where that is asked for.

    `itemSchema` is of one event, as in OpenAPI 3.2; FastAPI writes it into documents of 3.1 too.
    """
    event = {"description": description, **EVENT}
    return {"content": {"text/event-stream": {"itemSchema": event}}}


def binary(description: str, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """The description of an answer, or a body, of raw bytes."""
    schema = {"type": "string", "format": "binary", "description": description}
    return {"content": {media_type: {"schema": schema}}}


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, completed once."""
    schema = type(app).openapi(app)
    components = schema.setdefault("components", {})
    if "securitySchemes" in components:
        return schema
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "When a token is configured."}
    }
    schema["security"] = [{"token": []}, {}]
    for name, model in components["schemas"].items():
        _document_fields(name, model)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _document_names(path, operation)
            _document_body(operation)
            _document_streams(operation)
    return schema


def _document_fields(name: str, model: dict[str, Any]) -> None:
    for field, description in model.get("properties", {}).items():
        if found := meaning(name, field):
            description.setdefault("description", found)


def _document_names(path: str, operation: dict[str, Any]) -> None:
    names = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": NAMES[name],
            "schema": SCHEMAS.get(name, ID),
        }
        for name in re.findall(r"{(\w+)}", path)
    ]
    if names:
        operation["parameters"] = names + operation.get("parameters", [])


def _document_body(operation: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        operation["responses"].setdefault("413", _failure(413, [TooLarge]))


def _document_streams(operation: dict[str, Any]) -> None:
    """FastAPI adds that the whole is a string, which readers take for what an event is."""
    for response in operation["responses"].values():
        stream = response.get("content", {}).get("text/event-stream", {})
        if "itemSchema" in stream:
            stream.pop("schema", None)


def _failure(status: int, kinds: list[type[CellshellError]]) -> dict[str, Any]:
    examples = {kind.code: {"value": _example(kind)} for kind in kinds}
    return {
        "description": ", ".join(f"`{kind.code}`" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": PROBLEM, "examples": examples}},
    }


def _example(kind: type[CellshellError]) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(kind.status).phrase,
        "status": kind.status,
        "code": kind.code,
        "detail": "What was expected, what came, what to do.",
    }
