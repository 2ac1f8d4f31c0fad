"""The query service: reads from Redis what the projector wrote. Builds every client, here only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from query_service.api import history, orders, projections
from query_service.api.side import QuerySide
from query_service.freshness import Freshness
from query_service.heartbeat import read_heartbeat
from query_service.history import open_history
from query_service.log import Log
from query_service.news import News
from query_service.read_models.orders import Orders
from query_service.reader import READ_SECONDS, Reader
from shared import web
from shared.postgres import create_pool
from shared.read_model_keys import PartitionKeys, read_checkpoint
from shared.redis import REDIS_DOWN, create_redis
from shared.settings import Settings
from shared.web import NotReady

_DESCRIPTION = """Reads orders from documents that are kept up to date from the event log.

Every answer carries a `Consistency-Token`: hand back the newest one you have, from here or from a command's
acknowledgement, and what you read never goes backwards.
"""


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _query_side(settings) as side, open_history(settings) as past:
            app.state.query_side = side
            app.state.history = past
            yield

    async def ready() -> None:
        await _check_ready(app.state.query_side, settings.heartbeat_stale_seconds)

    app = web.create_api(
        title="Orders: query service",
        description=_DESCRIPTION,
        settings=settings,
        lifespan=lifespan,
        ready=ready,
        tags=[
            {"name": "orders", "description": "What customers see."},
            {"name": "history", "description": "What happened to an order, from the log itself. Needs no Redis."},
            {"name": "projections", "description": "How current it is."},
        ],
    )
    app.include_router(orders.router)
    app.include_router(history.router)
    app.include_router(projections.router)
    return app


@asynccontextmanager
async def _query_side(settings: Settings) -> AsyncIterator[QuerySide]:
    redis = create_redis(settings)
    keys = PartitionKeys("orders")
    pool = await create_pool(settings, "query", max_size=2)
    reader, news, log = Reader(redis, keys), News(redis, keys), Log(pool)
    news.start()
    try:
        yield QuerySide(redis, keys, log, Orders(reader), Freshness(news, log), settings.token_wait_seconds)
    finally:
        await news.close()
        await reader.close()
        pool.terminate()
        await redis.aclose()


async def _check_ready(side: QuerySide, stale_seconds: float) -> None:
    """Raises `NotReady`."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            checkpoint = await read_checkpoint(side.redis, side.keys)
            heartbeat = await read_heartbeat(side.redis, side.keys)
    except REDIS_DOWN as error:
        raise NotReady(f"Redis does not answer: {error}") from error
    if checkpoint is None or checkpoint.rebuilding:
        raise NotReady("The read model is being built from the log.")
    if heartbeat is None:
        raise NotReady("There has been no sign of life from a projector.")
    if heartbeat.age_seconds > stale_seconds:
        raise NotReady(f"The last sign of life from a projector is {heartbeat.age_seconds:.0f} s old.")
