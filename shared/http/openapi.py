"""What routes say about themselves in the OpenAPI document of their service: the errors that they answer."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from shared.aggregates import EVENT_TYPES
from shared.errors import OrdersError
from shared.eventstore.codec import UnknownEventType, UnknownSchemaVersion, UnreadablePayload
from shared.http.bodies import MAX_ERRORS
from shared.http.fast_route import UnexpectedBody
from shared.http.form_errors import FormError
from shared.http.problems import MEDIA_TYPE, members_of, problem_body, status_of, title_of
from shared.http.rate_limit import DEFAULT_RATE, TooManyRequests
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
    "additionalProperties": True,
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
