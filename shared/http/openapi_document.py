"""The OpenAPI document of a service: what FastAPI makes of its routes, completed and without repetitions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from shared.http.openapi import PROBLEM_SCHEMA, WITHOUT_RESPONSE_HEADERS, Json
from shared.http.problems import MEDIA_TYPE
from shared.http.rate_limit import DESCRIBED
from shared.http.response_headers import ResponseHeaders
from shared.identity.access import access_of
from shared.identity.caller import Role

BEARER: Json = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "Where the service runs with `AUTH=jwt`: a token of its issuer, whose claim `roles` lists those"
    " of the caller. With `AUTH=off` the service reads no token.",
}


def complete(app: FastAPI, response_headers: ResponseHeaders, schemas: Mapping[str, Json]) -> None:
    """Replaces the document of the application by one with short operation ids, the `Problem` schema, these schemas,
    the response headers, and each repeated part once, under `components`."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _make(app, response_headers, schemas)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _make(app: FastAPI, response_headers: ResponseHeaders, schemas: Mapping[str, Json]) -> Json:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            route.operation_id = operation_id(route.name)
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=app.openapi_version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=[{"url": app.state.settings.root_path or "/", "description": "this service"}],
        license_info={"name": "MIT", "identifier": "MIT"},
        contact={"name": "The maintainers of this service"},
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update({"Problem": PROBLEM_SCHEMA, **schemas})
    _secure(app, document)
    _restore_examples(app, document)
    for operation in _operations(document):
        if WITHOUT_RESPONSE_HEADERS not in operation["tags"]:
            for answer in operation["responses"].values():
                answer["headers"] = {**answer.get("headers", {}), **response_headers.described, **DESCRIBED}
        for parameter in operation.get("parameters", []):
            _show_where_required(parameter)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            _show_body(document, content)
    _share(
        document,
        "headers",
        [answer for operation in _operations(document) for answer in operation["responses"].values()],
    )
    _share(document, "responses", list(_operations(document)))
    _share(document, "parameters", list(_operations(document)))
    return document


def _secure(app: FastAPI, document: Json) -> None:
    """Says of each operation whether it needs a token, and which roles may use it. The document is the same with
    `AUTH=off`: clients that are generated from it fit both."""
    document["components"]["securitySchemes"] = {"bearer": BEARER}
    for access in access_of(app.routes):
        operation = document["paths"][access.path][access.method.lower()]
        operation["security"] = [{"bearer": []}] if access.roles else []
        if access.roles:
            roles = ", ".join(f"`{role}`" for role in Role if role in access.roles)
            own = ". A `customer` reaches what is its own" if Role.CUSTOMER in access.roles else ""
            operation["description"] = f"{operation.get('description', '')}\n\nRoles: {roles}{own}.".lstrip()


def _restore_examples(app: FastAPI, document: Json) -> None:
    """FastAPI drops every null, also in examples."""
    schemas = document["components"]["schemas"]
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema and route.response_model is not None:
            schema = TypeAdapter(route.response_model).json_schema(mode="serialization")
            for name, definition in {**schema.pop("$defs", {}), schema.get("title", ""): schema}.items():
                if "example" in definition and name in schemas:
                    schemas[name]["example"] = definition["example"]


def operation_id(name: str) -> str:
    """`place_order` is `placeOrder`."""
    first, *rest = re.findall(r"[A-Za-z0-9]+", name)
    return "".join([first, *(word.capitalize() for word in rest)])


def _operations(document: Json) -> Iterator[Json]:
    for item in document["paths"].values():
        yield from item.values()


def _show_where_required(parameter: Json) -> None:
    """The reference page fills in the `example` of a parameter. That of one that may be left out is in its schema.
    A description that both have stays with the parameter."""
    schema = parameter["schema"]
    if schema.get("description") == parameter.get("description"):
        schema.pop("description", None)
    if parameter.get("required"):
        if "examples" in schema:
            parameter["example"] = schema.pop("examples")[0]
    elif "example" in parameter:
        schema["examples"] = [parameter.pop("example")]


def _show_body(document: Json, content: Json) -> None:
    """The reference page fills in the `example` of a body: no more than a client has to send, unless the schema of the
    body has an example of its own."""
    content["example"] = _least(document["components"]["schemas"], content["schema"])


def _least(schemas: Json, schema: Json) -> Any:
    """An example without what may be left out; None where a field shows none."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [_least(schemas, schema["items"])]
    if schema.get("type") == "object":
        return {name: _least(schemas, schema["properties"][name]) for name in schema.get("required", ())}
    return schema.get("const")


def _share(document: Json, kind: str, holders: list[Json]) -> None:
    """Moves each part of this kind that several holders have to `components`."""
    counted = Counter(text for holder in holders for text, _ in _parts(holder, kind))
    names: dict[str, str] = {}
    shared: Json = {}
    for holder in holders:
        for text, name in list(_parts(holder, kind)):
            if counted[text] > 1 and text not in names:
                names[text] = _free(name, shared)
                shared[names[text]] = json.loads(text)
        holder_parts = holder.get(kind)
        if isinstance(holder_parts, list):
            holder[kind] = [_reference(part, kind, names) for part in holder_parts]
        elif isinstance(holder_parts, dict):
            holder[kind] = {key: _reference(part, kind, names) for key, part in holder_parts.items()}
    if shared:
        document["components"][kind] = shared


def _parts(holder: Json, kind: str) -> Iterator[tuple[str, str]]:
    """(text, name) of each part"""
    parts = holder.get(kind, {})
    named = parts.items() if isinstance(parts, dict) else ((part["name"], part) for part in parts)
    for name, part in named:
        yield json.dumps(part), _name_of(name, part, kind)


def _name_of(key: str, part: Json, kind: str) -> str:
    if kind != "responses":
        return key
    codes = part.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    if len(codes) == 1:
        return "".join(word.capitalize() for word in next(iter(codes)).split("-"))
    return _PHRASES.get(key, f"Status{key}")


_PHRASES: Mapping[str, str] = {
    "200": "Success",
    "201": "Created",
    "304": "NotModified",
    "400": "BadRequest",
    "401": "Unauthorized",
    "404": "NotFound",
    "409": "Conflict",
    "422": "Unprocessable",
    "429": "TooManyRequests",
    "500": "ServerError",
    "503": "Unavailable",
}


def _free(name: str, taken: Json) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{number}"
    return free


def _reference(part: Json, kind: str, names: Mapping[str, str]) -> Json:
    name = names.get(json.dumps(part))
    return part if name is None else {"$ref": f"#/components/{kind}/{name}"}
