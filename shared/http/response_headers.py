"""Headers of every answer, errors included. `RequestMiddleware` adds them, below ASGI the server's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from starlette.types import Scope

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

SECURITY: Headers = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
# Answers are about persons, unless a route says that its are not (`scope["cacheable"]`).
PRIVATE: Headers = (*SECURITY, (b"cache-control", b"private, no-store"))


def as_lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


class ResponseHeaders(NamedTuple):
    """`headers` returns names and values for the answer to a request; `described` is their OpenAPI description."""

    headers: Callable[[Scope], Sequence[tuple[bytes, bytes]]]
    described: Mapping[str, Any]


NO_RESPONSE_HEADERS = ResponseHeaders(lambda _: (), {})
