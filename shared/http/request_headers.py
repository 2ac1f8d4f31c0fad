"""The headers of a request by name. Lines of one name were joined or refused before (`shared.http.request_head`)."""

from __future__ import annotations

from starlette.types import Scope


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """By name in lower case; made once for each request. Starlette's `Headers` compares all names at each access."""
    headers: dict[bytes, bytes] | None = scope.get("headers_by_name")
    if headers is None:
        headers = scope["headers_by_name"] = dict(scope["headers"])
    return headers


def header(scope: Scope, name: bytes) -> str | None:
    """The value of one header; `name` is in lower case."""
    value = headers_of(scope).get(name)
    return None if value is None else value.decode("latin-1")
