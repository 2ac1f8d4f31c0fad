"""The query service: reads what the projector wrote. Builds every client, here only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from query_service import standing
from query_service.api import history, orders, projections, reports
from query_service.api.side import QuerySide
from query_service.freshness import Freshness
from query_service.history import open_history
from query_service.log import Log
from query_service.looking import Looks
from query_service.news import News
from query_service.read_models import revenue_by_day
from query_service.read_models.orders import Orders
from query_service.read_models.revenue_by_day import Revenue
from query_service.reader import Reader
from query_service.standing import Ask
from shared import web
from shared.errors import Unavailable
from shared.postgres import create_pool
from shared.read_model_keys import PartitionKeys
from shared.redis import create_redis
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
            {"name": "reports", "description": "Sums over orders. Kept in PostgreSQL."},
            {"name": "projections", "description": "How current it is."},
        ],
    )
    app.include_router(orders.router)
    app.include_router(history.router)
    app.include_router(reports.router)
    app.include_router(projections.router)
    return app


@asynccontextmanager
async def _query_side(settings: Settings) -> AsyncIterator[QuerySide]:
    redis = create_redis(settings)
    keys = PartitionKeys("orders")
    pool = await create_pool(settings, "query", max_size=4)
    reader, news, log = Reader(redis, keys), News(redis, keys), Log(pool)
    revenue_standing = partial(standing.in_postgresql, pool, revenue_by_day.NAME)
    looks = Looks(partial(_position, revenue_standing))
    news.start()
    try:
        yield QuerySide(
            log,
            Orders(reader),
            Freshness(news, log),
            Revenue(pool),
            Freshness(looks, log),
            {keys.projection: partial(standing.in_redis, redis, keys), revenue_by_day.NAME: revenue_standing},
            settings.token_wait_seconds,
        )
    finally:
        await news.close()
        await looks.close()
        await reader.close()
        pool.terminate()
        await redis.aclose()


async def _position(ask: Ask) -> int:
    return (await ask()).position


async def _check_ready(side: QuerySide, stale_seconds: float) -> None:
    """Of the orders only: reports that are not there yet keep nobody from reading orders. Raises `NotReady`."""
    try:
        checkpoint, heartbeat, _ = await side.standings["orders"]()
    except Unavailable as error:
        raise NotReady(error.detail) from error
    if checkpoint is None or checkpoint.rebuilding:
        raise NotReady("The read model is being built from the log.")
    if heartbeat is None:
        raise NotReady("There has been no sign of life from a projector.")
    if heartbeat.age_seconds > stale_seconds:
        raise NotReady(f"The last sign of life from a projector is {heartbeat.age_seconds:.0f} s old.")
