"""What the committed OpenAPI documents say: what each operation may answer, and what it takes, by its examples."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import httpx

Document: TypeAlias = dict[str, Any]  # JSON: of OpenAPI, or a part of it

DIRECTORY = Path(__file__).parents[1] / "docs" / "openapi"
PROBLEM = "application/problem+json"


def read_document(service: str) -> Document:
    """As committed."""
    return resolved(json.loads((DIRECTORY / f"{service}.json").read_text("utf-8")))


def resolved(document: Document) -> Document:
    """The document with the shared parameters, headers and responses where they are referred to."""

    def follow(part: Any) -> Any:
        if isinstance(part, list):
            return [follow(one) for one in part]
        if not isinstance(part, dict):
            return part
        if re.match("#/components/(parameters|headers|responses)/", part.get("$ref", "")):
            kind, name = part["$ref"].split("/")[2:]
            return follow(document["components"][kind][name])
        return {key: follow(value) for key, value in part.items()}

    followed: Document = follow(document)
    return followed


def assert_documented(answer: httpx.Response) -> None:
    """The problem is one that the document of its operation tells of."""
    request, found = answer.request, (answer.status_code, answer.json()["code"])
    path = request.url.raw_path.decode().partition("?")[0]
    if found in {(404, "no-such-route"), (405, "method-not-allowed")}:  # not of any operation
        return
    for method, template, problems in _operations():
        if method == request.method and re.fullmatch(template, path):
            assert found in problems, f"{found} is missing in the OpenAPI document, at {method} {path}"


@cache
def _operations() -> list[tuple[str, str, set[tuple[int, str]]]]:
    """(method, pattern of the path, its problems) of each operation of either service."""
    documents = [read_document(path.stem) for path in DIRECTORY.glob("*.json")]
    return [
        (method.upper(), re.sub(r"\{\w+\}", "[^/]+", path), problems_of(operation))
        for document in documents
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def problems_of(operation: Document) -> set[tuple[int, str]]:
    """As status and code."""
    return {
        (int(status), code)
        for status, answer in operation["responses"].items()
        for code in answer.get("content", {}).get(PROBLEM, {}).get("examples", {})
    }


class NoExample(LookupError):
    """Names the field that shows none."""


def example_of(document: Document, schema: Document, name: str = "it") -> Any:
    """As the documentation composes it, from the examples of all fields. A value that is the only one, or that is
    assumed, need not be shown. Raises `NoExample`."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"][0]
    for only in ("example", "const", "default"):
        if schema.get(only) is not None:
            return schema[only]
    if "enum" in schema:
        return schema["enum"][0]
    if "items" in schema:
        return [example_of(document, schema["items"], f"{name}[]")]
    for alternative in schema.get("anyOf", []):
        if alternative.get("type") != "null":
            return example_of(document, alternative, name)
    if fields := schema.get("properties"):
        return {field: example_of(document, fields[field], f"{name}.{field}") for field in fields}
    raise NoExample(name)


def body_example(operation: Document) -> Any:
    """What the reference page fills in; None where the request has no body."""
    if "requestBody" not in operation:
        return None
    return operation["requestBody"]["content"]["application/json"]["example"]


def parameter_examples(document: Document, operation: Document, place: str) -> dict[str, Any]:
    """Those in the `path`, the `query` or a `header`, by name. Raises `NoExample`."""
    return {
        parameter["name"]: parameter.get("example") or example_of(document, parameter["schema"], parameter["name"])
        for parameter in operation.get("parameters", [])
        if parameter["in"] == place
    }


def queries_documented() -> list[str]:
    """The paths of the query service, with the example of each parameter that is required."""
    document = read_document("query")
    return [_address(document, path, item["get"]) for path, item in document["paths"].items()]


def _address(document: Document, path: str, operation: Document) -> str:
    required = {one["name"] for one in operation.get("parameters", []) if one.get("required")}
    query = parameter_examples(document, operation, "query")
    given = urlencode({name: value for name, value in query.items() if name in required})
    return path.format(**parameter_examples(document, operation, "path")) + (f"?{given}" if given else "")
