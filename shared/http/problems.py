"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from shared.http import event_streams
from shared.http.bodies import MAX_ERRORS
from shared.http.form_errors import form_error
from shared.logs import get_logger

MEDIA_TYPE = "application/problem+json"

_log = get_logger()

# The status of each branch of the error tree. Looked up along the bases of the class, so a leaf needs no entry.
STATUS: dict[type[errors.OrdersError], int] = {
    errors.Malformed: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Rejected: 409,
    errors.Stale: 412,
    errors.Invalid: 422,
    errors.Limited: 429,
    errors.Unavailable: 503,
    errors.OutcomeUnknown: 504,
    errors.Corrupt: 500,
    errors.OrdersError: 500,
}

_CLIENT_CLOSED_REQUEST = 499  # for the metrics, as nginx counts it; the client does not see it
PAGE = "/docs/errors.md"  # explains every code; `type` leads there

# Codes and titles of errors that are none of ours, by status.
FRAMEWORK = {
    400: ("malformed-json", "The body is not valid JSON"),
    404: ("no-such-route", "There is nothing at this address"),
    405: ("method-not-allowed", "The method is not offered at this address"),
    413: ("body-too-large", "The body is too large"),
    415: ("unsupported-media-type", "The body is not application/json"),
    421: ("misdirected-request", "This host is not served"),
    422: ("invalid-request", "The request is not acceptable"),
    500: ("internal-error", "Internal error"),
}


def title_of(status: int, code: str) -> str:
    """Of an error that is none of ours."""
    known, title = FRAMEWORK.get(status, ("", ""))
    return title if code == known else code.replace("-", " ").capitalize()


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    instance: str,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    root_path: str = "",
) -> Response:
    """`root_path` is the prefix of our addresses (`ROOT_PATH`)."""
    body = problem_body(status, code, title, detail, instance, root_path) | dict(extra or {})
    return Response(msgspec.json.encode(body, enc_hook=str), status, headers, media_type=MEDIA_TYPE)


def problem_body(status: int, code: str, title: str, detail: str, instance: str, root_path: str = "") -> dict[str, Any]:
    return {
        "type": f"{root_path}{PAGE}#{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    }


def install(app: FastAPI) -> None:
    """Answers every error as a problem document, also those of the framework."""
    app.add_exception_handler(errors.OrdersError, answer_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _unexpected)


def status_of(error: type[errors.OrdersError]) -> int:
    return next(STATUS[base] for base in error.__mro__ if base in STATUS)


async def answer_error(request: Request, error: Exception) -> Response:
    """The problem document of an error of ours. A browser that asks for a stream and may come back gets it in one."""
    assert isinstance(error, errors.OrdersError)
    status = status_of(type(error))
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    elif isinstance(error, errors.Unauthenticated):
        headers = {"WWW-Authenticate": "Bearer"}
    if status >= 500 and status != 503:  # 503s come in thousands; their cause is logged where it is detected
        _log.warning(error.code, detail=error.detail, path=request.url.path)
    answer = _answer(request, status, error.code, error.title, error.detail, headers, members_of(error))
    if isinstance(error, errors.Unavailable) and event_streams.wants_a_stream(request):
        return event_streams.refusal(error.code, bytes(answer.body), error.retry_after)
    return answer


def members_of(error: errors.OrdersError) -> dict[str, Any]:
    """The data of an error, which its problem document has beside the standard members."""
    reserved = {"type", "title", "status", "detail", "instance", "code", "retry_after"}
    data = {name: _exact(value) for name, value in vars(error).items() if not name.startswith("_")}
    return {name: value for name, value in data.items() if name not in reserved}


def _answer(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    return problem(status, code, title, detail, request.url.path, headers, extra, request.scope["root_path"])


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        where = next(e for e in found if e["type"] == "json_invalid")
        detail = f"The body is not valid JSON: {where['ctx']['error']}."
        return _answer(request, 400, *FRAMEWORK[400], detail)
    listed = [form_error(e) for e in found[:MAX_ERRORS]]
    detail = f"{len(listed)} {'value is' if len(listed) == 1 else 'values are'} not acceptable; see errors."
    if len(found) >= MAX_ERRORS:
        detail = f"{detail} There may be more."
    return _answer(request, 422, *FRAMEWORK[422], detail, extra={"errors": listed})


def _exact(value: Any) -> Any:
    return exact(value) if type(value) is int else value


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code, title = FRAMEWORK.get(error.status_code, (phrase.lower().replace(" ", "-"), phrase))
    detail, headers = str(error.detail), error.headers
    if error.status_code == 404:
        docs = f"{request.scope['root_path']}/docs"
        detail = f"There is nothing at {request.url.path}; {docs} lists what there is."
    elif error.status_code == 400:  # FastAPI's only one; its own text names no cause
        detail = "The body is not JSON that can be read: not UTF-8, nested too deeply, or with a number too long."
    elif error.status_code == 405:
        detail = f"{request.method} is not offered at {request.url.path}."
        headers = {"Allow": _with_head((error.headers or {}).get("Allow", ""))}
    if error.status_code in {404, 405} and request.method == "GET":
        detail += request.app.state.hint_for_reads
    return _answer(request, error.status_code, code, title, detail, headers)


def _with_head(allowed: str) -> str:
    """The value of `Allow`, with HEAD where GET works."""
    methods = allowed.split(", ")
    return ", ".join([*methods, "HEAD"] if "GET" in methods and "HEAD" not in methods else methods)


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _unexpected(request: Request, error: Exception) -> Response:
    # The traceback goes to the log, never to the client.
    _log.error("unexpected error", path=request.url.path, exc_info=error)
    detail = "This is a defect of the service. The log has it under this request's X-Correlation-ID."
    return _answer(request, 500, *FRAMEWORK[500], detail)
