"""What a connection answers to a request that does not reach the application, before it closes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from shared.http.limits import MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADER_LINES, MAX_REQUEST_LINE_BYTES
from shared.http.problems import MEDIA_TYPE, problem_body, title_of


class Refusal(NamedTuple):
    status: int
    code: str
    detail: str
    data: Mapping[str, Any] = {}
    retry_after: int | None = None  # seconds


MALFORMED = Refusal(400, "malformed-request", "The request is not HTTP that can be read.")
NO_HOST = Refusal(400, "malformed-request", "A request of HTTP/1.1 has one Host header, with a host and maybe a port.")
OTHER_HOST = Refusal(400, "malformed-request", "The request target and the Host header name different hosts.")
UNEXPECTED_BODY = Refusal(400, "unexpected-body", "A request with this method has no body.")
SLOW_HEAD = Refusal(408, "request-timeout", "The request line and the headers did not arrive in time.")
SLOW_BODY = Refusal(408, "request-timeout", "The body arrived too slowly.")
URI_TOO_LONG = Refusal(414, "uri-too-long", f"A request line may have at most {MAX_REQUEST_LINE_BYTES} bytes.")
HEADER_TOO_LARGE = Refusal(431, "headers-too-large", f"One header may have at most {MAX_HEADER_BYTES} bytes.")
HEADERS_TOO_LARGE = Refusal(
    431,
    "headers-too-large",
    f"All headers and trailers together may have at most {MAX_HEAD_BYTES} bytes and {MAX_HEADER_LINES} lines.",
)
UNKNOWN_TRANSFER_CODING = Refusal(501, "transfer-coding-not-implemented", "The only transfer coding is chunked.")
NO_TUNNEL = Refusal(501, "method-not-implemented", "CONNECT is not implemented.")
TOO_MANY_CONNECTIONS = Refusal(503, "too-many-connections", "Too many connections are open.", retry_after=1)
TOO_MANY_LARGE_REQUESTS = Refusal(503, "overloaded", "Too many large requests are in progress.", retry_after=1)
SHUTTING_DOWN = Refusal(503, "shutting-down", "The process is stopping; nothing was done.", retry_after=1)
UNKNOWN_VERSION = Refusal(505, "http-version-not-supported", "The versions of HTTP are 1.0 and 1.1.")


def body_too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "body-too-large", f"The body may be at most {max_bytes} bytes.")


def repeated_header(name: str) -> Refusal:
    return Refusal(400, "malformed-header", f"{name} has one value, and came twice.", {"header": name})


def answer(refusal: Refusal, root_path: str, path: str, correlation_id: str, fixed_headers: bytes) -> bytes:
    """The path is below `root_path` (`ROOT_PATH`)."""
    title = title_of(refusal.status, refusal.code)
    problem = problem_body(refusal.status, refusal.code, title, refusal.detail, root_path + path, root_path)
    problem |= refusal.data
    body = msgspec.json.encode(problem)
    retry_after = "" if refusal.retry_after is None else f"retry-after: {refusal.retry_after}\r\n"
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nx-correlation-id: {correlation_id}\r\n{retry_after}connection: close\r\n"
    )
    return head.encode() + fixed_headers + b"\r\n" + body
