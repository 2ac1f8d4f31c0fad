"""The OpenAPI document of a service: what FastAPI makes of its routes, completed and without repetitions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from shared.aggregates import EVENT_TYPES
from shared.errors import OrdersError
from shared.eventstore.codec import UnknownEventType, UnknownSchemaVersion, UnreadablePayload
from shared.http.bodies import MAX_ERRORS
from shared.http.fast_route import UnexpectedBody
from shared.http.form_errors import FormError
from shared.http.problems import MEDIA_TYPE, members_of, problem_body, status_of, title_of
from shared.http.rate_limit import DEFAULT_RATE, DESCRIBED, TooManyRequests
from shared.http.response_headers import ResponseHeaders
from shared.http.routing import MalformedQuery
from shared.identity.access import TokenMissing
from shared.identity.caller import RoleMissing
from shared.identity.key_set import KeysUnavailable
from shared.identity.token_verifier import TokenRefused

Json: TypeAlias = dict[str, Any]
# An example of an error, or the status and code of one that is none of ours; and when it happens.
Described: TypeAlias = tuple[OrdersError, str] | tuple[int, str, str]

WITHOUT_RESPONSE_HEADERS = "operations"  # the tag of routes whose answers do not have those of the service

PROBLEM_SCHEMA: Json = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457 problem details. `code` is stable; some codes add fields of their own.",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "where the code is explained"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "the path of the request"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "maxItems": MAX_ERRORS,
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail", "params"],
                "properties": {
                    "pointer": {"type": "string", "description": "into the body, `#/items/0`, or `query/limit`"},
                    "code": {"type": "string", "description": "stable: translate by it, with `params`"},
                    "detail": {"type": "string"},
                    "params": {"type": "object", "description": "such as `minimum` of `too-small`"},
                },
            },
        },
    },
}

_ONE_TYPE = next(iter(EVENT_TYPES))
# Of every route that folds the events of a stream.
UNREADABLE: tuple[Described, ...] = (
    (
        UnknownEventType("Teleported"),
        "The stream holds an event that a newer program wrote. Deploy that program first.",
    ),
    (
        UnknownSchemaVersion(_ONE_TYPE, 9),
        "The stream holds a version of an event that a newer program wrote.",
    ),
    (
        UnreadablePayload(_ONE_TYPE, 1, "Object missing required field `amount`"),
        "A stored event of the stream does not have the shape of its type.",
    ),
)
# Of every route that needs a token with AUTH=jwt.
REFUSED: tuple[Described, ...] = (
    (TokenMissing(), "AUTH=jwt, and the request has no bearer token."),
    (TokenRefused("it has expired"), "The bearer token has expired, or is not one that the service accepts."),
    (RoleMissing(["auditor", "staff"]), "The caller has none of the roles that this needs."),
    (KeysUnavailable(), "The keys that verify tokens cannot be read; nothing was done."),
)
# Of every route but those for orchestrators and Prometheus.
_LIMITED: tuple[Described, ...] = ((TooManyRequests(DEFAULT_RATE, 1_000), "The client sends requests too fast."),)
# Of every route.
_ALWAYS: tuple[Described, ...] = (
    (MalformedQuery("no-such", "is unknown here"), "A query parameter is unknown here, or came twice."),
    (UnexpectedBody(), "There is a body where none is expected."),
    (421, "misdirected-request", "The host in the address is not one that this service answers for."),
    (500, "internal-error", "A defect of the service; its log has it under the X-Correlation-ID."),
)


def responses(*described: Described, limited: bool = True) -> dict[int | str, Json]:
    """The `responses=` of a route. Lists the errors of one status together, and adds those of every route. `limited`:
    whether a client may use the route only so often."""
    found: dict[int | str, Json] = {}
    for one in (*described, *(_LIMITED if limited else ()), *_ALWAYS):
        value, when = _example(one)
        status, code = value["status"], value["code"]
        entry = found.setdefault(status, {"description": "", "content": {MEDIA_TYPE: _problem_content()}})
        entry["description"] = f"{entry['description']}\n\n`{code}`: {when}".strip()
        entry["content"][MEDIA_TYPE]["examples"][code] = {"summary": code, "value": value}
        codes = entry["content"][MEDIA_TYPE]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        if code not in codes:
            codes.append(code)
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return found


def _problem_content() -> Json:
    codes: Json = {"type": "object", "properties": {"code": {"type": "string", "enum": []}}}
    return {"schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, codes]}, "examples": {}}


def _example(described: Described) -> tuple[Json, str]:
    """(problem document, when it happens)"""
    if len(described) == 3:
        status, code, when = described
        body = problem_body(status, code, title_of(status, code), when, "/")
        if code == "invalid-request":
            told = FormError("query/limit", "too-small", "Give at least 1.", {"minimum": 1})
            body["errors"] = [msgspec.to_builtins(told)]
        return body, when
    error, when = described
    body = problem_body(status_of(type(error)), error.code, error.title, error.detail, "/")
    members: Json = msgspec.to_builtins(members_of(error))
    return body | members, when


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
    document["security"] = []
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
    """The reference page fills in the `example` of a parameter. That of one that may be left out is in its schema."""
    schema = parameter["schema"]
    if parameter.get("required"):
        if "examples" in schema:
            parameter["example"] = schema.pop("examples")[0]
    elif "example" in parameter:
        schema["examples"] = [parameter.pop("example")]


def _show_body(document: Json, content: Json) -> None:
    """The example of a body's schema, which names no more than a client has to send."""
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name, {})
    if "examples" in schema:
        content["example"] = schema.pop("examples")[0]


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
    "304": "NotModified",
    "400": "BadRequest",
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
