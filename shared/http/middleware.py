"""The outermost layer of both services: correlation id, response headers, metrics, one log line a request.

Plain ASGI rather than `BaseHTTPMiddleware`, which costs a task and a stream for every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from time import perf_counter

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from shared.http.response_headers import ResponseHeaders
from shared.logs import get_logger
from shared.metrics import HTTP_REQUESTS, HTTP_SECONDS

CORRELATION_HEADER = b"x-correlation-id"
_ACCEPTABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_log = get_logger()


class RequestMiddleware:
    def __init__(self, app: ASGIApp, response_headers: ResponseHeaders) -> None:
        self._app = app
        self._response_headers = response_headers.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        identified = correlation_id(scope["headers"])
        scope["correlation_id"] = identified
        structlog.contextvars.bind_contextvars(correlation_id=identified)
        echo = (CORRELATION_HEADER, identified.encode())
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], echo, *self._response_headers(scope)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            # An event stream sets when it began: it may last for hours.
            answered_at = scope.get("answered_at") or perf_counter()
            _observe(scope, status, answered_at - started)


def correlation_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's correlation id where it is acceptable, else a new one."""
    for name, value in headers:
        if name == CORRELATION_HEADER:
            given = value.decode("latin-1")
            return given if _ACCEPTABLE_ID.fullmatch(given) else str(uuid7())
    return str(uuid7())


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
