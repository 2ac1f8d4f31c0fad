"""Headers of every answer of a service's routes, errors included. `RequestMiddleware` adds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.types import Scope


class ResponseHeaders(NamedTuple):
    """`headers` returns names and values for the answer to a request; `described` is their OpenAPI description."""

    headers: Callable[[Scope], Sequence[tuple[bytes, bytes]]]
    described: Mapping[str, Any]


NO_RESPONSE_HEADERS = ResponseHeaders(lambda _: (), {})
