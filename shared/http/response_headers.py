"""Headers that every answer of a service's routes carries, its errors included: put on where the answer leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.types import Scope


class ResponseHeaders(NamedTuple):
    """`headers` gives names and values for the answer to a request; `described` is how OpenAPI describes them."""

    headers: Callable[[Scope], Sequence[tuple[bytes, bytes]]]
    described: Mapping[str, Any]


NO_RESPONSE_HEADERS = ResponseHeaders(lambda _: (), {})
