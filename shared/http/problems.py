"""Errors as `application/problem+json` (RFC 9457), and how OpenAPI shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from shared import errors
from shared.exact_integers import exact
from shared.http.bodies import MAX_ERRORS
from shared.http.form_errors import form_error
from shared.http.response_headers import ResponseHeaders
from shared.logs import get_logger

MEDIA_TYPE = "application/problem+json"

_log = get_logger()

# The status of each branch of the error tree. Looked up along the bases of the class, so a leaf needs no entry.
STATUS: dict[type[errors.OrdersError], int] = {
    errors.Malformed: 400,
    errors.NotFound: 404,
    errors.Rejected: 409,
    errors.Stale: 412,
    errors.Invalid: 422,
    errors.Unavailable: 503,
    errors.OutcomeUnknown: 504,
    errors.Corrupt: 500,
    errors.OrdersError: 500,
}

_CLIENT_CLOSED_REQUEST = 499  # for the metrics, as nginx counts it; the client does not see it
# Codes of the framework's own errors.
_CODES = {400: "malformed-json", 404: "no-such-route", 405: "method-not-allowed"}


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    instance: str,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    body = problem_body(status, code, title, detail, instance) | dict(extra or {})
    return Response(msgspec.json.encode(body, enc_hook=str), status, headers, media_type=MEDIA_TYPE)


def problem_body(status: int, code: str, title: str, detail: str, instance: str) -> dict[str, Any]:
    return {
        "type": f"urn:orders:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    }


def install(app: FastAPI, response_headers: ResponseHeaders) -> None:
    """Answers every error as a problem document, also those of the framework."""
    app.add_exception_handler(errors.OrdersError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, partial(_unexpected, response_headers))


def status_of(error: type[errors.OrdersError]) -> int:
    return next(STATUS[base] for base in error.__mro__ if base in STATUS)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.OrdersError)
    status = status_of(type(error))
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if status >= 500 and status != 503:  # 503s come in thousands; their cause is logged where it is detected
        _log.warning(error.code, detail=error.detail, path=request.url.path)
    data = {name: _exact(value) for name, value in vars(error).items() if not name.startswith("_")}
    reserved = {"type", "title", "status", "detail", "instance", "code", "retry_after"}
    extra = {name: value for name, value in data.items() if name not in reserved}
    return problem(status, error.code, error.title, error.detail, request.url.path, headers, extra)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        where = next(e for e in found if e["type"] == "json_invalid")
        detail = f"The body is not valid JSON: {where['ctx']['error']}."
        return problem(400, "malformed-json", "The body is not valid JSON", detail, request.url.path)
    listed = [form_error(e) for e in found[:MAX_ERRORS]]
    detail = f"{len(listed)} {'value is' if len(listed) == 1 else 'values are'} not acceptable; see errors."
    if len(found) >= MAX_ERRORS:
        detail = f"{detail} There may be more."
    return problem(
        422, "invalid-request", "The request is not acceptable", detail, request.url.path, extra={"errors": listed}
    )


def _exact(value: Any) -> Any:
    return exact(value) if type(value) is int else value


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    code = _CODES.get(error.status_code, title.lower().replace(" ", "-"))
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}; /docs lists what there is."
    elif error.status_code == 400:  # FastAPI's only one; its own text names no cause
        detail = "The body is not JSON that can be read: not UTF-8, nested too deeply, or with a number too long."
    elif error.status_code == 405:
        detail = f"{request.method} is not offered at {request.url.path}."
    return problem(error.status_code, code, title, detail, request.url.path, error.headers)


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _unexpected(response_headers: ResponseHeaders, request: Request, error: Exception) -> Response:
    # The traceback goes to the log, never to the client.
    _log.error("unexpected error", path=request.url.path, exc_info=error)
    detail = "This is a defect of the service. The log has it under this request's X-Correlation-ID."
    # Answered outside of `RequestMiddleware`, which adds these headers to every other answer.
    headers = {"X-Correlation-ID": request.scope.get("correlation_id", "")}
    headers |= {name.decode(): value.decode() for name, value in response_headers.headers(request.scope)}
    return problem(500, "internal-error", "Internal error", detail, request.url.path, headers)


# --- OpenAPI -------------------------------------------------------------------------------------------------------

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457 problem details. `code` is stable; some codes add fields of their own.",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
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


# Of every route that folds the events of a stream.
UNREADABLE = (
    (500, "unknown-event-type", "The stream holds an event that a newer program wrote. Deploy that program first."),
    (500, "unknown-schema-version", "The stream holds a version of an event that a newer program wrote."),
    (500, "unreadable-payload", "A stored event of the stream does not have the shape of its type."),
)
_ANY_ROUTE = (
    (400, "malformed-query", "A query parameter is unknown here, or came twice."),
    (400, "unexpected-body", "There is a body where none is expected."),
    (500, "internal-error", "A defect of the service; its log has it under the X-Correlation-ID."),
)


def responses(*described: tuple[int, str, str]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route, from (status, code, when it happens). Lists the codes of one status together; adds
    those of any route."""
    out: dict[int | str, dict[str, Any]] = {}
    for status, code, when in (*described, *_ANY_ROUTE):
        example = {
            "summary": code,
            "value": {
                "type": f"urn:orders:problem:{code}",
                "title": HTTPStatus(status).phrase,
                "status": status,
                "detail": when,
                "instance": "/",
                "code": code,
            },
        }
        entry = out.setdefault(
            status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        entry["description"] = f"{entry['description']}\n\n`{code}`: {when}".strip()
        entry["content"][MEDIA_TYPE]["examples"][code] = example
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return out
