"""Routes for orchestrators and operators, and the port where the latter are served away from clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from shared.errors import Unavailable
from shared.http.openapi import REFUSED, responses
from shared.http.protocol import ServerProtocol
from shared.identity.access import allowed, public
from shared.identity.caller import Role
from shared.settings import Settings

TAG = "operations"
_PATIENCE = 5.0  # seconds for answers to operators to end


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


def are_public(settings: Settings) -> bool:
    """Whether the port for clients offers what is for operators: only on a loopback address, and where they have no
    port of their own."""
    return settings.operations_port is None and settings.is_loopback


def coalesced(ready: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The same check; requests that arrive while it runs share its result, because `/readyz` has no limit."""
    running: asyncio.Task[str | None] | None = None

    async def reason() -> str | None:
        try:
            await ready()
        except NotReady as error:
            return error.reason
        return None

    async def check() -> None:
        nonlocal running
        if running is None or running.done():
            running = asyncio.create_task(reason(), name="readiness")
        missing = await asyncio.shield(running)
        if missing is not None:
            raise NotReady(missing)

    return check


def health(ready: Callable[[], Awaitable[None]], *, details: bool) -> APIRouter:
    """For orchestrators. Without `details`, a 503 of `/readyz` does not name what is missing."""
    router = APIRouter(tags=[TAG])

    @router.get("/livez", summary="Is the process alive?", response_model=Health, responses=responses(limited=False))
    @public
    async def livez() -> Response:
        """Answers whenever the process runs, whatever it depends on. Restart the process where this fails."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @router.get(
        "/readyz",
        summary="Can it do its work?",
        response_model=Health,
        responses=responses(
            (NotReady("PostgreSQL cannot be reached"), "A server it depends on is missing."), limited=False
        ),
    )
    @public
    async def readyz(request: Request) -> Response:
        """Answers 200 when every server it depends on answers, until it is told to stop. Where this fails, send no
        requests; do not restart."""
        if request.app.state.stopping:
            raise NotReady("The service is stopping.")
        try:
            await ready()
        except NotReady:
            if details:
                raise
            raise NotReady("A server it depends on does not answer.") from None
        return Response(b'{"status":"ready"}', media_type="application/json")

    return router


def metrics() -> APIRouter:
    router = APIRouter(tags=[TAG])

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format"},
            **responses(*REFUSED, limited=False),
        },
    )
    @allowed(Role.OPERATOR)
    async def read_metrics() -> Response:
        """Every metric of this process, in Prometheus' text format."""
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


@asynccontextmanager
async def served(app: ASGIApp, settings: Settings) -> AsyncIterator[None]:
    """The application at `OPERATIONS_PORT`, if that is set, as long as this process has what its routes need.

    On connections of its own: clients that use up those of the other port do not keep operators out.
    """
    if settings.operations_port is None:
        yield
        return
    config = uvicorn.Config(
        app, http=ServerProtocol, lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    state = ServerState()
    protocol = partial(ServerProtocol, config=config, server_state=state, app_state={})
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(protocol, settings.host, settings.operations_port)
    try:
        yield
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_PATIENCE)
