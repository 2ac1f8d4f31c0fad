"""The projector process: a worker and a monitor for each projection, and health and metrics over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from fastapi import FastAPI

from projector.projections import PROJECTIONS
from projector.projector_process import ProjectorProcess
from shared.http import application
from shared.http.server import serve
from shared.logs import configure_logs
from shared.postgres import create_pool
from shared.redis import create_redis
from shared.settings import Settings, settings

_MOST_AT_ONCE = 8


def create_app(settings: Settings) -> FastAPI:
    """Health and metrics; the projector starts and stops with it."""
    redis = create_redis(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One connection for lag; for every projection one, and one for each partition, up to a few.
        workers = (min(_MOST_AT_ONCE, settings.partitions_of(name)) for name in PROJECTIONS)
        database = await create_pool(settings, "projector-read-models", max_size=1 + len(PROJECTIONS) + sum(workers))
        app.state.projector = ProjectorProcess(settings, redis, database)
        try:
            async with app.state.projector.running():
                yield
        finally:
            database.terminate()
            await redis.aclose()

    async def ready() -> None:
        await app.state.projector.ready()

    app = application.create_api(
        title="Orders: projector",
        description="Health and metrics of the projector, which keeps the read models up to date.",
        settings=settings,
        lifespan=lifespan,
        ready=ready,
        has_clients=False,
    )
    return app


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; the batch in hand is finished."""
    await serve(create_app(settings), settings.projector_port, settings)


if __name__ == "__main__":
    configure_logs("projector", settings().log_level)
    uvloop.run(run(settings()))
