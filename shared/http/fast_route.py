"""Routes that call their endpoint directly.

FastAPI searches for parameters of every kind in every request. `FastRoute` calls an endpoint without that search when
it takes only the request, parts of the path and a JSON body, and returns a response (decision 18). It reads path and
body once, and raises FastAPI's `RequestValidationError` for what is not acceptable.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import Malformed
from shared.http.bodies import InvalidBody, read_body
from shared.http.request_head import BODILESS


class FastRoute(APIRoute):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fast:
            self.app = _answering(self.get_route_handler())

    @property
    def is_fast(self) -> bool:
        return self._parameters is not None

    @cached_property
    def _parameters(self) -> _Parameters | None:
        return _parameters_of(self)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if (parameters := self._parameters) is None:
            return super().get_route_handler()
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint  # all of ours are coroutine functions

        async def call(request: Request) -> Response:
            return await endpoint(request, *await parameters.read(request))

        return call


def _answering(handle: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """Without the exit stacks and the second layer for exceptions that FastAPI puts around an endpoint with
    dependencies."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return answer


class _Parameters(NamedTuple):
    """The parameters after the request: parts of the path, then the body, if any.

    `absent` is the body of a request without one; None where one is required.
    """

    path: list[tuple[str, TypeAdapter[Any]]]
    body: type[BaseModel] | None
    absent: BaseModel | None
    refuses_body: bool  # where the connection lets one pass

    async def read(self, request: Request) -> list[Any]:
        """Raises `RequestValidationError` with the errors of all of them, and `UnexpectedBody`."""
        given = request.scope["path_params"]
        arguments: list[Any] = []
        errors: list[Any] = []
        for name, kind in self.path:
            try:
                arguments.append(kind.validate_python(given[name]))
            except ValidationError as error:
                errors += [
                    {**one, "loc": ("path", name)} for one in error.errors(include_url=False, include_input=False)
                ]
        if self.body is not None:
            try:
                content = await request.body()
                empty = self.absent if not content else None
                arguments.append(empty or read_body(self.body, content))
            except InvalidBody as error:
                errors += error.errors
        elif self.refuses_body and await request.body():
            raise UnexpectedBody
        if errors:
            raise RequestValidationError(errors)
        return arguments


@dataclass
class UnexpectedBody(Malformed):
    code = "unexpected-body"
    title = "The request has a body"

    @property
    def detail(self) -> str:
        return "No body is expected here. Nothing was done."


def _parameters_of(route: APIRoute) -> _Parameters | None:
    """None where the endpoint has other parameters."""
    hints = get_type_hints(route.endpoint, include_extras=True)
    if route.dependencies or hints.get("return") is not Response:
        return None
    parameters = inspect.signature(route.endpoint).parameters
    names = list(parameters)
    in_path = [name for name in names if name in route.param_convertors]
    body = hints[names[-1]] if names[-1] == "body" else None
    if names != ["request", *in_path, *(["body"] if body else [])]:
        return None
    refuses_body = body is None and not BODILESS.issuperset(route.methods or ())
    default = parameters["body"].default if body else None
    absent = default if isinstance(default, BaseModel) else None
    return _Parameters([(name, TypeAdapter(hints[name])) for name in in_path], body, absent, refuses_body)
