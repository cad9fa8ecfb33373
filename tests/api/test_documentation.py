"""The OpenAPI document: complete, valid, and true about errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from interpreter.errors import BY_CODE
from interpreter.settings import Settings

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("home")))
    first = app.openapi()
    assert app.openapi() == first
    return first


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_operations_are_named_once_and_described(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert {"exec", "run_code", "create_sandbox", "read_file", "git_checkout"} <= set(names)
    for method, path, operation in operations(document):
        assert operation["summary"] and operation["description"] and operation["tags"], (
            method,
            path,
        )


def test_every_field_and_parameter_is_described(document: dict[str, Any]) -> None:
    silent = [
        f"{model}.{field}"
        for model, schema in document["components"]["schemas"].items()
        for field, description in schema.get("properties", {}).items()
        if not description.get("description")
    ]
    silent += [
        f"{method} {path} {parameter['name']}"
        for method, path, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    assert not silent


def test_every_part_of_a_path_is_a_parameter(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        names = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
        assert path.count("{") == len(names) == len(set(names))


def test_every_route_lists_its_errors(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        failures = {s: r for s, r in operation["responses"].items() if s >= "400"}
        assert {"401", "403", "422", "431"} <= failures.keys(), (method, path)
        made = "{" not in path or operation["operationId"] == "ensure_sandbox"
        assert made or "404" in failures, (method, path)
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            assert "413" in failures, (method, path)


def test_every_error_is_a_problem_with_a_known_code(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400" or path == "/health":
                continue
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in content["examples"].items():
                assert str(BY_CODE[code].status) == status == str(example["value"]["status"])


def test_bodies_have_examples(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            assert content["application/json"]["examples"], (method, path)


def test_apps_share_nothing(tmp_path: Path) -> None:
    first, second = (create_app(Settings(home=tmp_path / name)) for name in "ab")
    assert first.state.metrics.registry is not second.state.metrics.registry
    assert first.router.routes is not second.router.routes
