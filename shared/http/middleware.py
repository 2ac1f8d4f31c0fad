"""The outermost layer of both services: correlation id, body limit, response headers, metrics, one log line a request.

Plain ASGI rather than `BaseHTTPMiddleware`, which costs a task and a stream for every request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from time import perf_counter

import structlog
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from shared.http.problems import problem
from shared.http.response_headers import ResponseHeaders
from shared.logs import get_logger
from shared.metrics import HTTP_REQUESTS, HTTP_SECONDS

CORRELATION_HEADER = b"x-correlation-id"
_DISCARD_BYTES = 16 * 1024 * 1024
_DISCARD_SECONDS = 2.0
_ACCEPTABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_log = get_logger()


class RequestMiddleware:
    def __init__(self, app: ASGIApp, max_body_bytes: int, response_headers: ResponseHeaders) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._response_headers = response_headers.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        given, content_length, expects_continue = _read(scope["headers"])
        identified = _identified(given)
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

        too_large = content_length is not None and content_length > self._max_body_bytes
        try:
            if too_large:
                await self._refuse(scope, receive, send_with_id, discard=not expects_continue)
            else:
                await self._app(scope, self._limited(receive), send_with_id)
        finally:
            # An event stream sets when it began: it may last for hours.
            answered_at = scope.get("answered_at") or perf_counter()
            _observe(scope, status, answered_at - started)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, *, discard: bool) -> None:
        """Answers 413 to a body whose Content-Length is over the limit, on every route."""
        if discard:
            await _discard(receive)
        error = self._too_large()
        title = HTTPStatus(error.status_code).phrase
        refused = problem(413, "body-too-large", title, error.detail, scope["path"], error.headers)
        await refused(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        """`receive` that refuses a body over the limit with 413 where no Content-Length gives its size.

        FastAPI's own `max_body_size` answers in plain text, which would break the promise of problem details.
        """
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received <= self._max_body_bytes:
                return message
            await _discard(receive)
            raise self._too_large()

        return receive_limited

    def _too_large(self) -> HTTPException:
        # The unread rest of the body must not be parsed as the next request on this connection.
        return HTTPException(413, f"The body may be at most {self._max_body_bytes} bytes.", {"Connection": "close"})


async def _discard(receive: Receive) -> None:
    """Reads the rest of a body, within bounds: closing a connection with unread bytes resets it, and a client that is
    still sending would never see the answer."""
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while discarded < _DISCARD_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def correlation_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's correlation id where it is acceptable, else a new one."""
    return _identified(_read(headers)[0])


def _identified(given: str | None) -> str:
    return given if given is not None and _ACCEPTABLE_ID.fullmatch(given) else str(uuid7())


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, int | None, bool]:
    """(X-Correlation-ID, Content-Length, whether the client sent `Expect: 100-continue`), in one pass."""
    given, content_length, expects_continue = None, None, False
    for name, value in headers:
        if name == CORRELATION_HEADER:
            given = value.decode("latin-1")
        elif name == b"content-length" and value.isdigit():
            content_length = int(value)
        elif name == b"expect":  # 100-continue: refused now, the client sends no body at all
            expects_continue = True
    return given, content_length, expects_continue


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
