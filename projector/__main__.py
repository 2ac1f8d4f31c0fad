"""The projector process: the worker, its monitor, and health and metrics over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from fastapi import FastAPI

from projector.compactor import compact_for_ever
from projector.lag import Monitor
from projector.projections import PROJECTIONS
from projector.stores.redis import RedisStore
from projector.worker import Worker
from shared import web
from shared.logs import configure_logs
from shared.postgres import create_pool
from shared.read_model_keys import PartitionKeys
from shared.redis import create_redis
from shared.settings import Settings, settings


def create_app(settings: Settings) -> FastAPI:
    """Health and metrics; the projector starts and stops with it."""
    redis = create_redis(settings)
    (projection,) = PROJECTIONS
    keys = PartitionKeys(projection.name)
    store = RedisStore(redis, keys)
    worker = Worker(settings, projection, store, lease_name=keys.prefix)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log = await create_pool(settings, "projector-lag", max_size=2)
        monitor = Monitor(projection.name, store, log, worker, settings.heartbeat_seconds)
        working = asyncio.create_task(worker.run(), name="projector")
        monitoring = asyncio.create_task(monitor.run(), name="projector-lag")
        compacting = asyncio.create_task(compact_for_ever(log, settings), name="compactor")
        try:
            yield
        finally:
            worker.stop()
            monitor.stop()
            monitoring.cancel()
            compacting.cancel()
            await asyncio.wait([working, monitoring, compacting])
            log.terminate()
            await redis.aclose()

    return web.create_api(
        title="Orders: projector",
        description="Health and metrics of the projector, which keeps the read models up to date.",
        settings=settings,
        lifespan=lifespan,
        ready=worker.ready,
    )


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; the batch in hand is finished."""
    await web.serve(create_app(settings), settings.projector_port, settings)


if __name__ == "__main__":
    configure_logs("projector", settings().log_level)
    uvloop.run(run(settings()))
