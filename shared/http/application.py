"""The HTTP application of every process: its shell, middleware, OpenAPI document and server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from types import MappingProxyType
from typing import Any, NoReturn

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan

from shared.http import docs, openapi_document, operations, problems
from shared.http.client_middleware import ClientMiddleware
from shared.http.cors import allow_origins, fixed_headers
from shared.http.middleware import RequestMiddleware
from shared.http.rate_limit import RateLimit
from shared.http.response_headers import NO_RESPONSE_HEADERS, PRIVATE, ResponseHeaders, as_lines
from shared.http.routing import prepare
from shared.identity.access import secure
from shared.settings import Settings

VERSION = "0.1.0"

_LOOPBACK_HOSTS = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_ERRORS = """\
Every error is a problem document (RFC 9457). Switch on its `code`, which never changes: each operation lists its own;
an address that is none is 404 `no-such-route`, a method that is not offered there 405 `method-not-allowed`. A query
parameter that an operation does not know, or that comes twice, is 400 `malformed-query`.

A request that the server does not accept is answered before it reaches an operation, and its connection closes:

| status | `code` | when |
|---|---|---|
| 400 | `malformed-request` | it is not HTTP, or its host is missing or unclear |
| 400 | `malformed-header` | a header that has one value came twice |
| 400 | `unexpected-body` | a `GET`, `HEAD`, `DELETE` or `OPTIONS` with a body |
| 408 | `request-timeout` | the request line and headers took 15 s, or the body arrives at less than 1 KiB/s |
| 413 | `body-too-large` | a body over 512 KiB, unless set otherwise |
| 414 | `uri-too-long` | a request line over 8 KiB |
| 421 | `misdirected-request` | a `Host` that the service does not answer for; the connection stays open |
| 431 | `headers-too-large` | a header over 8 KiB, or all over 16 KiB or 100 lines |
| 501 | `transfer-coding-not-implemented` | a transfer coding other than `chunked` |
| 501 | `method-not-implemented` | `CONNECT` |
| 503 | `too-many-connections`, `overloaded`, `shutting-down` | come back after `Retry-After` |
| 505 | `http-version-not-supported` | not HTTP/1.0 or 1.1 |

`HEAD` works wherever `GET` does.
"""


class _Application(FastAPI):
    """Its middleware is outermost: it also sees the answer to an unexpected error."""

    wrap: Callable[[ASGIApp], ASGIApp]
    fixed_headers: bytes  # of an answer that the application does not see (`shared.http.protocol`)

    def build_middleware_stack(self) -> ASGIApp:
        """Without layers of FastAPI's own that do nothing here: telemetry, its limit of bodies, and the exit stack of
        uploads, which `prepare` puts around the routes that need one."""
        handlers = dict(self.exception_handlers)
        unexpected = handlers.pop(Exception)
        app: ASGIApp = ExceptionMiddleware(self.router, handlers)
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return self.wrap(ServerErrorMiddleware(app, unexpected))


def create_api(
    *,
    title: str,
    description: str,
    settings: Settings,
    lifespan: Lifespan[FastAPI],
    ready: Callable[[], Awaitable[None]],
    tags: Sequence[dict[str, str]] = (),
    response_headers: ResponseHeaders = NO_RESPONSE_HEADERS,
    for_operators: Sequence[APIRouter] = (),
    has_clients: bool = True,
    schemas: Mapping[str, Any] = MappingProxyType({}),
) -> FastAPI:
    """An application without its own routes. `schemas` are components of its OpenAPI document that routes refer to.

    `ready` raises `NotReady` while the service cannot do its work. The routes `for_operators`, metrics and the details
    of `/readyz` are at `OPERATIONS_PORT` (`shared.http.operations`), unless the application `has_clients` no more than
    operators.
    """
    ready = operations.coalesced(ready)
    private = has_clients and not operations.are_public(settings)
    operators_app = _shell(title, description, settings, response_headers)

    @asynccontextmanager
    async def lifespan_with_operations(app: FastAPI) -> AsyncIterator[None]:
        operators_app.state = app.state
        async with lifespan(app), operations.served(operators_app, settings):
            yield
        if (verifier := app.state.token_verifier) is not None:
            await verifier.close()

    app = _shell(title, f"{description.rstrip()}\n\n{_ERRORS}", settings, response_headers)
    app.router.lifespan_context = lifespan_with_operations
    app.openapi_tags = [*tags, {"name": operations.TAG, "description": "For orchestrators and Prometheus."}]
    app.state.settings = settings
    app.state.stopping = False
    app.state.token_verifier = None
    app.state.hint_for_reads = ""  # follows what is said of a GET that no route answers
    _append(
        app,
        docs.install(app),
        operations.health(ready, details=not private),
        *(() if private else (operations.metrics(), *for_operators)),
    )
    _append(operators_app, operations.health(ready, details=True), operations.metrics(), *for_operators)
    openapi_document.complete(app, response_headers, schemas)
    return app


def _shell(
    title: str,
    description: str,
    settings: Settings,
    response_headers: ResponseHeaders,
) -> FastAPI:
    app = _Application(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        title=title,
        description=description,
        version=VERSION,
        # Spans and metrics of our own are enough until OpenTelemetry is asked for; off, it costs nothing.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redirect_slashes=False,
    )
    hosts = _hosts(settings)
    app.router.add_api_route = app.router.add_route = app.router.include_router = _refuse_route  # type: ignore[method-assign]
    app.wrap = lambda inner: allow_origins(RequestMiddleware(inner, response_headers, hosts), settings.cors_origins)
    app.fixed_headers = as_lines((*PRIVATE, *fixed_headers(settings.cors_origins)))
    problems.install(app)
    return app


def _refuse_route(*_args: Any, **_options: Any) -> NoReturn:
    """FastAPI would add the route without `prepare`, and without the check of its callers."""
    raise TypeError("Add routes with `add_routes`, which checks their callers.")


def _hosts(settings: Settings) -> frozenset[bytes] | None:
    if settings.allowed_hosts == "*":
        return None
    if settings.allowed_hosts:
        return frozenset(settings.allowed_hosts.lower().encode().split(b","))
    return _LOOPBACK_HOSTS if settings.is_loopback else None


def add_routes(app: FastAPI, settings: Settings, *routers: APIRouter) -> None:
    """Adds the routes of the routers before all others; identifies, limits and checks the callers of all.
    `include_router` would match each request twice. Raises `InsecureSettings` and `UndeclaredAccess`."""
    app.router.routes[:0] = _prepared(routers)
    verifier, limit = secure(app, settings), RateLimit.of(settings)
    app.state.token_verifier = verifier
    if verifier is not None or limit is not None:
        app.add_middleware(ClientMiddleware, verifier=verifier, limit=limit, root_path=settings.root_path)


def _append(app: FastAPI, *routers: APIRouter) -> None:
    app.router.routes += _prepared(routers)


def _prepared(routers: Iterable[APIRouter]) -> list[BaseRoute]:
    # Copies: what is put in front of a route is of one application and its settings.
    routes = [copy(route) for router in routers for route in router.routes]
    for route in routes:
        if isinstance(route, APIRoute):
            prepare(route)
    return routes
