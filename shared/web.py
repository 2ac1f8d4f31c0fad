"""What both services have in common over HTTP: the application shell, health, metrics, offline docs, the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import Lifespan

from shared import problems
from shared.edge import Edge
from shared.errors import Unavailable
from shared.settings import Settings

VERSION = "0.1.0"


@dataclass
class NotReady(Unavailable):
    """`reason` says which dependency is missing."""

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
) -> FastAPI:
    """An application with everything but its own routes.

    `ready` raises `NotReady` while the service cannot do its work.
    """
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title=title,
        description=description,
        version=VERSION,
        lifespan=lifespan,
        openapi_tags=[*(tags or []), {"name": "operations", "description": "For orchestrators and Prometheus."}],
        # Spans and metrics of our own are enough until OpenTelemetry is asked for; off, it costs nothing.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redirect_slashes=False,
    )
    app.add_middleware(Edge, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    _add_operations(app, ready)
    _share_problem_schema(app)
    return app


def _add_operations(app: FastAPI, ready: Callable[[], Awaitable[None]]) -> None:
    @app.get("/livez", tags=["operations"], summary="Is the process alive?", response_model=Health)
    async def livez() -> Response:
        """The process answers, whatever it depends on. Where this fails, start it again."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Can it do its work?",
        response_model=Health,
        responses=problems.responses((503, "not-ready", "A server it depends on is missing; the detail names it.")),
    )
    async def readyz() -> Response:
        """Everything it depends on answers. Where this fails, send it no requests; starting it again does not help."""
        await ready()
        return Response(b'{"status":"ready"}', media_type="application/json")

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format"}},
    )
    async def metrics() -> Response:
        """Every metric of this process, in Prometheus' text format."""
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _share_problem_schema(app: FastAPI) -> None:
    """Puts the `Problem` schema, which routes refer to, into the document."""

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
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


async def serve(app: FastAPI, port: int, settings: Settings) -> None:
    """Serves until SIGTERM, SIGINT or cancellation, then finishes what it accepted (at most `shutdown_seconds`)."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
    server = uvicorn.Server(config)
    # What was loaded by now lives as long as the process; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True  # uvicorn, cancelled outright, would leave its sockets and the lifespan behind
        await serving
        raise
