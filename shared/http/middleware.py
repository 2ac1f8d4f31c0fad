"""The outermost layer of both services: hosts, correlation id, HEAD, response headers, metrics, one log line a request.

Plain ASGI rather than `BaseHTTPMiddleware`, which costs a task and a stream for every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from time import perf_counter

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from shared.http.problems import FRAMEWORK, problem
from shared.http.request_headers import headers_of
from shared.http.response_headers import PRIVATE, SECURITY, ResponseHeaders
from shared.identity.access import ABSENT, conceal, limited_to_owner
from shared.logs import get_logger
from shared.metrics import HTTP_REQUESTS, HTTP_SECONDS

CORRELATION_HEADER = b"x-correlation-id"
_ACCEPTABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_log = get_logger()


class RequestMiddleware:
    def __init__(self, app: ASGIApp, response_headers: ResponseHeaders, hosts: frozenset[bytes] | None) -> None:
        """`hosts` are the names, without ports, that a request may be for; None: any."""
        self._app = app
        self._response_headers = response_headers.headers
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["came_at"] = started = perf_counter()
        headers = headers_of(scope)
        identified = _correlation_id(headers)
        scope["correlation_id"] = identified
        structlog.contextvars.bind_contextvars(correlation_id=identified)
        echo = (CORRELATION_HEADER, identified.encode())
        status = 500
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)  # the server has its own scope

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in ABSENT and limited_to_owner(scope) is not None:
                    await conceal(scope)
                fixed = SECURITY if "cacheable" in scope else PRIVATE
                message["headers"] = [*message["headers"], echo, *fixed, *self._response_headers(scope)]
                message["headers"] += scope.get("rate_limit", ())
            await send(message)

        try:
            host = headers.get(b"host")
            if self._hosts is not None and host is not None and _name_of(host) not in self._hosts:
                await _refuse_host(host, scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        finally:
            # An event stream sets when it began: it may last for hours.
            answered_at = scope.get("answered_at") or perf_counter()
            _observe(scope, status, answered_at - started)


def correlation_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's correlation id where it is acceptable, else a new one."""
    return _correlation_id(dict(headers))


def _correlation_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(CORRELATION_HEADER)
    if given is not None and _ACCEPTABLE_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return str(uuid7())


def _name_of(host: bytes) -> bytes:
    """Without the port, in lower case."""
    name, bracket, _ = host.partition(b"]")
    return (name + bracket if bracket else host.partition(b":")[0]).lower()


async def _refuse_host(host: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    # A page of another site whose name was made to lead here (DNS rebinding) would count as a page of our origin.
    detail = f"This service does not answer for {host.decode('latin-1')}; ALLOWED_HOSTS names the hosts it does."
    refused = problem(421, *FRAMEWORK[421], detail, scope["path"], root_path=scope["root_path"])
    await refused(scope, receive, send)


def _without_body(send: Send) -> Send:
    """`send` for the answer to HEAD, which ends with its headers: the answer to GET may be an endless stream."""
    complete = False

    async def send_head(message: Message) -> None:
        nonlocal complete
        if message["type"] == "http.response.start":
            await send(message)
        elif not complete:
            complete = True
            await send({"type": "http.response.body", "body": message.get("body", b"")})

    return send_head


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return HTTP_REQUESTS.labels(method, route, status), HTTP_SECONDS.labels(method, route)


def _observe(scope: Scope, status: int, seconds: float) -> None:
    # Label by route template, never by path: the number of time series stays bounded.
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    answered, took = _series(method, route, status)
    answered.inc()
    took.observe(seconds)
    _log.debug("request", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 2))
