"""How every route reads its path and its query string."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from fastapi.dependencies.utils import get_flat_params
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor
from starlette.types import Receive, Scope, Send

from shared.errors import Malformed
from shared.http.fast_route import FastRoute

_SHOWN = 100  # characters of a name that is no parameter


@dataclass
class MalformedQuery(Malformed):
    parameter: str
    expected: str
    code = "malformed-query"
    title = "The query string cannot be read"

    @property
    def detail(self) -> str:
        return f"The parameter {self.parameter!r} {self.expected}."


class _DecodedPart(StringConvertor):
    """Paths are matched as they were sent (`shared.http.protocol`), parts of them decoded afterwards."""

    def convert(self, value: str) -> str:
        return unquote(value)


def prepare(route: APIRoute) -> None:
    """Makes the route decode the parts of its path, and refuse what its query string holds beside its parameters."""
    route.param_convertors = {
        name: _DecodedPart() if isinstance(convertor, StringConvertor) else convertor
        for name, convertor in route.param_convertors.items()
    }
    parameters = _query_parameters(route)
    answer = route.app if isinstance(route, FastRoute) and route.is_fast else AsyncExitStackMiddleware(route.app)

    def refuse_or_answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["query_string"]:
            _check_query(scope["query_string"], parameters)
        return answer(scope, receive, send)

    route.app = refuse_or_answer


def _query_parameters(route: APIRoute) -> frozenset[str]:
    """The names that OpenAPI lists."""
    described = (route.openapi_extra or {}).get("parameters", [])
    names = {parameter["name"] for parameter in described if parameter["in"] == "query"}
    names |= {parameter.alias for parameter in get_flat_params(route.dependant)}
    return frozenset(names - route.param_convertors.keys())


def _check_query(query: bytes, parameters: frozenset[str]) -> None:
    """Raises `MalformedQuery`."""
    given: set[str] = set()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in parameters:
            raise MalformedQuery(name[:_SHOWN], "is unknown here")
        if name in given:
            raise MalformedQuery(name, "may come once")
        given.add(name)
