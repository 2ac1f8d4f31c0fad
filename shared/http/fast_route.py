"""Routes that call their endpoint directly.

FastAPI looks for parameters of every kind in every request. `FastRoute` calls an endpoint without that search when it
takes only the request, parts of the path and a JSON body, and returns a response (decision 18). It reads path and body
once, and raises FastAPI's `RequestValidationError` for what is not acceptable.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response


class FastRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if (parameters := _parameters_of(self)) is None:
            return super().get_route_handler()
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint  # all of ours are coroutine functions

        async def call(request: Request) -> Response:
            return await endpoint(request, *await parameters.read(request))

        return call


class _Parameters(NamedTuple):
    """The parameters after the request: parts of the path, then the body, if any."""

    path: list[tuple[str, TypeAdapter[Any]]]
    body: type[BaseModel] | None

    async def read(self, request: Request) -> list[Any]:
        """Raises `RequestValidationError` with the errors of all of them."""
        given = request.scope["path_params"]
        arguments: list[Any] = []
        errors: list[Any] = []
        for name, kind in self.path:
            try:
                arguments.append(kind.validate_python(given[name]))
            except ValidationError as error:
                errors += _located(error, "path", name)
        if self.body is not None:
            content = await request.body()
            try:
                arguments.append(self.body.model_validate_json(content))
            except ValidationError as error:
                errors += _located(error, "body") if content else [_NO_BODY]
        if errors:
            raise RequestValidationError(errors)
        return arguments


_NO_BODY = {"type": "missing", "loc": ("body",), "msg": "Field required"}


def _located(error: ValidationError, *place: str) -> list[dict[str, Any]]:
    return [{**one, "loc": (*place, *one["loc"])} for one in error.errors(include_url=False, include_input=False)]


def _parameters_of(route: APIRoute) -> _Parameters | None:
    """None where the endpoint has other parameters."""
    hints = get_type_hints(route.endpoint, include_extras=True)
    if route.dependencies or hints.get("return") is not Response:
        return None
    names = list(inspect.signature(route.endpoint).parameters)
    in_path = [name for name in names if name in route.param_convertors]
    body = hints[names[-1]] if names[-1] == "body" else None
    if names != ["request", *in_path, *(["body"] if body else [])]:
        return None
    return _Parameters([(name, TypeAdapter(hints[name])) for name in in_path], body)
