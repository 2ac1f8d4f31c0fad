"""The query service: reads what the projector wrote. Builds every client, here only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from query_service import standing
from query_service.api import events, history, orders, projections, reports
from query_service.api.side import QuerySide
from query_service.api.staleness import Lags, stamp_of
from query_service.freshness import Freshness
from query_service.history import History, open_history
from query_service.lag import Furthest, Itself, Lag, ReadModel, Replica, Source, looking_at
from query_service.live.feed import open_feed
from query_service.log import Log
from query_service.looking import Looks
from query_service.news import News
from query_service.read_models import revenue_by_day
from query_service.read_models.orders import NAME, Orders
from query_service.read_models.revenue_by_day import Revenue
from query_service.reader import Reader
from query_service.standing import Ask
from shared.aio import cancel
from shared.errors import Unavailable
from shared.eventstore.blockers import monitor_blockers
from shared.http import application
from shared.http.application import NotReady
from shared.postgres import connect, create_pool
from shared.redis import create_redis
from shared.settings import Settings

_DESCRIPTION = """Reads orders from documents that are kept up to date from the event log.

Every answer says with `Projection-Lag` how stale it is, in milliseconds.

Every answer carries a `Consistency-Token`: hand back the newest one you have, from here or from a command's
acknowledgement, and what you read never goes backwards.
"""


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            _query_side(settings, lags) as side,
            open_history(settings) as past,
            open_feed(settings) as feed,
            looking_at(_sources(settings, lags, side, past)),
        ):
            app.state.query_side = side
            app.state.history = past
            app.state.feed = feed
            yield

    async def ready() -> None:
        await _check_ready(app.state.query_side, settings.heartbeat_stale_seconds)

    lags = Lags(Lag(), Lag(), Lag())
    # Whose lag the answers of a router's routes say.
    routers = (
        (orders.router, lags.orders),
        (history.router, lags.log),
        (events.router, lags.log),
        (reports.router, lags.revenue),
        (projections.router, Furthest(lags.orders, lags.revenue)),
    )
    app = application.create_api(
        title="Orders: query service",
        description=_DESCRIPTION,
        settings=settings,
        lifespan=lifespan,
        ready=ready,
        tags=[
            {"name": "orders", "description": "What customers see."},
            {"name": "history", "description": "What happened to an order, from the log itself. Needs no Redis."},
            {"name": "live updates", "description": "What happens, as it happens. Needs no Redis."},
            {"name": "reports", "description": "Sums over orders. Kept in PostgreSQL."},
            {"name": "projections", "description": "How current it is."},
        ],
        stamp=stamp_of(*routers, otherwise=lags.orders),
    )
    app.state.settings = settings
    app.state.lags = lags
    application.add_routes(app, *(router for router, _ in routers))
    return app


@asynccontextmanager
async def _query_side(settings: Settings, lags: Lags) -> AsyncIterator[QuerySide]:
    redis = create_redis(settings)
    pool = await create_pool(settings, "query", max_size=4)
    aside = await create_pool(settings, "stalls", max_size=1)
    reader = Reader(redis, NAME, settings.remembered_document_bytes)
    news, log = News(redis, NAME), Log(pool, aside)
    revenue_standing = partial(standing.in_postgresql, pool, revenue_by_day.NAME)
    looks = Looks(partial(_position, revenue_standing))
    standings: dict[str, Ask] = {
        NAME: partial(standing.in_redis, redis, NAME),
        revenue_by_day.NAME: revenue_standing,
    }
    news.start()
    stalls = asyncio.create_task(
        monitor_blockers(lambda: connect(settings, "stalls"), settings.long_transaction_seconds), name="stalls"
    )
    try:
        yield QuerySide(
            log,
            Orders(reader),
            Freshness(news, log, lags.orders),
            Revenue(pool),
            Freshness(looks, log, lags.revenue),
            standings,
            settings.token_wait_seconds,
            settings.long_transaction_seconds,
        )
    finally:
        await cancel(stalls)
        await news.close()
        await looks.close()
        await reader.close()
        aside.terminate()
        pool.terminate()
        await redis.aclose()


def _sources(settings: Settings, lags: Lags, side: QuerySide, past: History) -> list[Source]:
    return [
        ReadModel(NAME, lags.orders, side.standings[NAME], side.log),
        ReadModel(revenue_by_day.NAME, lags.revenue, side.standings[revenue_by_day.NAME], side.log),
        Replica(lags.log, past.reached, side.log) if settings.history_database_url else Itself(lags.log, side.log),
    ]


async def _position(ask: Ask) -> int:
    return (await ask()).position


async def _check_ready(side: QuerySide, stale_seconds: float) -> None:
    """Of the orders only: reports that are not there yet keep nobody from reading orders. Raises `NotReady`."""
    try:
        checkpoint, heartbeat, *_ = await side.standings["orders"]()
    except Unavailable as error:
        raise NotReady(error.detail) from error
    if checkpoint is None or checkpoint.rebuilding:
        raise NotReady("The read model is being built from the log.")
    if heartbeat is None:
        raise NotReady("There has been no sign of life from a projector.")
    if heartbeat.age_seconds > stale_seconds:
        raise NotReady(f"The last sign of life from a projector is {heartbeat.age_seconds:.0f} s old.")
