"""The HTTP application of every process: its shell, health, metrics and offline docs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from shared.errors import Unavailable
from shared.http import problems
from shared.http.middleware import RequestMiddleware
from shared.http.response_headers import NO_RESPONSE_HEADERS, ResponseHeaders
from shared.http.routing import prepare
from shared.settings import Settings

VERSION = "0.1.0"

_OPERATIONS = "operations"
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
| 431 | `headers-too-large` | a header over 8 KiB, or all over 16 KiB or 100 lines |
| 501 | `transfer-coding-not-implemented` | a transfer coding other than `chunked` |
| 501 | `method-not-implemented` | `CONNECT` |
| 503 | `too-many-connections`, `overloaded`, `shutting-down` | come back after `Retry-After` |
| 505 | `http-version-not-supported` | not HTTP/1.0 or 1.1 |
"""


@dataclass
class NotReady(Unavailable):
    """`reason` names the dependency that is missing."""

    reason: str
    code = "not-ready"
    title = "The service is not ready"

    @property
    def detail(self) -> str:
        return self.reason


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})
    status: str


def create_api(
    *,
    title: str,
    description: str,
    settings: Settings,
    lifespan: Lifespan[FastAPI],
    ready: Callable[[], Awaitable[None]],
    tags: list[dict[str, str]] | None = None,
    response_headers: ResponseHeaders = NO_RESPONSE_HEADERS,
) -> FastAPI:
    """An application without its own routes.

    `ready` raises `NotReady` while the service cannot do its work.
    """
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title=title,
        description=f"{description.rstrip()}\n\n{_ERRORS}",
        version=VERSION,
        lifespan=lifespan,
        openapi_tags=[*(tags or []), {"name": _OPERATIONS, "description": "For orchestrators and Prometheus."}],
        # Spans and metrics of our own are enough until OpenTelemetry is asked for; off, it costs nothing.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redirect_slashes=False,
    )
    app.add_middleware(RequestMiddleware, response_headers=response_headers)
    problems.install(app, response_headers)
    app.state.settings = settings
    app.state.stopping = False
    _add_operations(app, ready)
    _prepare(app.routes)
    _complete_document(app, response_headers)
    return app


def add_routes(app: FastAPI, *routers: APIRouter) -> None:
    """Adds the routes of the routers before all others. `include_router` would match each request twice."""
    added = [route for router in routers for route in router.routes]
    _prepare(added)
    app.router.routes[:0] = added


def _prepare(routes: Iterable[BaseRoute]) -> None:
    for route in routes:
        if isinstance(route, APIRoute):
            prepare(route)


def _add_operations(app: FastAPI, ready: Callable[[], Awaitable[None]]) -> None:
    @app.get(
        "/livez",
        tags=[_OPERATIONS],
        summary="Is the process alive?",
        response_model=Health,
        responses=problems.responses(),
    )
    async def livez() -> Response:
        """Answers whenever the process runs, whatever it depends on. Restart the process where this fails."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.get(
        "/readyz",
        tags=[_OPERATIONS],
        summary="Can it do its work?",
        response_model=Health,
        responses=problems.responses((503, "not-ready", "A server it depends on is missing; the detail names it.")),
    )
    async def readyz() -> Response:
        """Answers 200 when every server it depends on answers, until it is told to stop. Where this fails, send no
        requests; do not restart."""
        if app.state.stopping:
            raise NotReady("The service is stopping.")
        await ready()
        return Response(b'{"status":"ready"}', media_type="application/json")

    @app.get(
        "/metrics",
        tags=[_OPERATIONS],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format"},
            **problems.responses(),
        },
    )
    async def metrics() -> Response:
        """Every metric of this process, in Prometheus' text format."""
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _complete_document(app: FastAPI, response_headers: ResponseHeaders) -> None:
    """Adds the `Problem` schema and the response headers to the OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version=app.openapi_version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = problems.PROBLEM_SCHEMA
            _describe(response_headers, document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(response_headers: ResponseHeaders, document: dict[str, Any]) -> None:
    if not response_headers.described:
        return
    document["components"]["headers"] = dict(response_headers.described)
    references = {name: {"$ref": f"#/components/headers/{name}"} for name in response_headers.described}
    for methods in document["paths"].values():
        for operation in methods.values():
            if _OPERATIONS not in operation["tags"]:
                for answer in operation["responses"].values():
                    answer["headers"] = {**answer.get("headers", {}), **references}
