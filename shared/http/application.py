"""The HTTP application of every process: its shell, health, metrics, offline docs and server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import Lifespan

from shared.errors import Unavailable
from shared.gc_tuning import tune_gc
from shared.http import problems
from shared.http.middleware import RequestMiddleware
from shared.http.protocol import ServerProtocol
from shared.http.response_headers import NO_RESPONSE_HEADERS, ResponseHeaders
from shared.settings import Settings

VERSION = "0.1.0"

_OPERATIONS = "operations"
_ERRORS = """\
Every error is a problem document (RFC 9457). Switch on its `code`, which never changes: each operation lists its own;
an address that is none is 404 `no-such-route`, a method that is not offered there 405 `method-not-allowed`.
A request line over 8 KiB is 414 `uri-too-long`; one header over 8 KiB, or all over 16 KiB or 100 lines, 431
`headers-too-large`; a body over 512 KiB, unless set otherwise, 413 `body-too-large`; what is not HTTP 400
`malformed-request`. The connection then closes.
"""

# The event loop (libuv) accepts one connection a turn for each listening socket. Under overload more arrive, and wait
# unseen in the kernel's queue. So it gets the same socket several times.
_ACCEPTED_AT_ONCE = 64


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
    app.add_middleware(RequestMiddleware, max_body_bytes=settings.max_body_bytes, response_headers=response_headers)
    problems.install(app, response_headers)
    _add_operations(app, ready)
    _complete_document(app, response_headers)
    return app


def add_routes(app: FastAPI, *routers: APIRouter) -> None:
    """Adds the routes of the routers before all others. `include_router` would match each request twice."""
    app.router.routes[:0] = [route for router in routers for route in router.routes]


def _add_operations(app: FastAPI, ready: Callable[[], Awaitable[None]]) -> None:
    @app.get("/livez", tags=[_OPERATIONS], summary="Is the process alive?", response_model=Health)
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
        """Answers 200 when every server it depends on answers. Where this fails, send no requests; do not restart."""
        await ready()
        return Response(b'{"status":"ready"}', media_type="application/json")

    @app.get(
        "/metrics",
        tags=[_OPERATIONS],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format"}},
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


async def serve(app: FastAPI, port: int, settings: Settings, protocol: type[ServerProtocol] = ServerProtocol) -> None:
    """Serves until SIGTERM, SIGINT or cancellation, then finishes what it accepted (at most `shutdown_seconds`)."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
    server = uvicorn.Server(config)
    tune_gc()
    listening = config.bind_socket()
    more = [listening.dup() for _ in range(_ACCEPTED_AT_ONCE - 1)]
    serving = asyncio.create_task(server.serve([listening, *more]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True  # uvicorn, cancelled outright, would leave its sockets and the lifespan behind
        await serving
        raise
