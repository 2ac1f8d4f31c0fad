"""The process runner, composed: health and metrics over HTTP, and the runner that starts and stops with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from command_service.app import create_group_commit, create_handler
from command_service.gateways.gateway import Gateway
from command_service.gateways.registry import KINDS, open_gateways
from command_service.processes import begun_kinds
from command_service.processes.runner import ProcessRunner
from command_service.processes.worker import ProcessWorker
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from shared.http import application
from shared.http.server import serve
from shared.postgres import create_pool
from shared.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """With FULFILMENT=off, it starts no runner. Raises `GatewayMissing`."""
    if settings.fulfilment != "off":
        for kind in KINDS.values():
            kind.url(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.runner = None
        if settings.fulfilment == "off":
            yield
            return
        async with open_gateways(settings) as gateways, running(settings, gateways) as app.state.runner:
            yield

    async def ready() -> None:
        if app.state.runner is not None:
            await app.state.runner.ready()

    app = application.create_api(
        title="Orders: processes",
        description="Health and metrics of the process runner, which fulfils orders.",
        settings=settings,
        lifespan=lifespan,
        ready=ready,
        has_clients=False,
    )
    return app


@asynccontextmanager
async def running(settings: Settings, gateways: Mapping[type[Any], Gateway]) -> AsyncIterator[ProcessRunner]:
    """A process runner, with a handler of commands of its own."""
    pool = await create_pool(settings, "processes-log")
    monitor, group_commit = create_group_commit(settings)
    store = PostgresEventStore(pool)
    handler = create_handler(settings, store, Snapshots.of(store, settings), group_commit)
    runner = ProcessRunner(settings, ProcessWorker(handler.handle, gateways, begun_kinds(settings.fulfilment)))
    group_commit.start()
    task = asyncio.create_task(runner.run(), name="process-runner")
    try:
        yield runner
    finally:
        runner.stop()
        await task
        await group_commit.stop()
        await monitor.close()
        await handler.close()
        pool.terminate()


def run(settings: Settings) -> Coroutine[Any, Any, None]:
    """Until SIGTERM or SIGINT. Raises `GatewayMissing` at once."""
    return serve(create_app(settings), settings.processes_port, settings)
