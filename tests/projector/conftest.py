from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from projector.projections.revenue_by_day import REVENUE
from projector.stores.generation_store import GenerationStore
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.redis_generations import RedisGenerationStore
from shared.eventstore.subscription import LogSession, open_session
from shared.postgres import create_pool
from shared.settings import Settings
from tests.projector.fresh_log import FreshLog
from tests.roles import settings_of


@pytest.fixture
def projector_settings(settings: Settings) -> Settings:
    return settings_of(settings, "orders_projector")


@pytest.fixture
async def pool(projector_settings: Settings) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await create_pool(projector_settings, "test")
    yield pool
    pool.terminate()


@pytest.fixture(params=["redis", "postgresql"])
async def generation_store(
    request: pytest.FixtureRequest, pool: asyncpg.Pool[asyncpg.Record], redis: Redis
) -> GenerationStore:
    """Of each place where read models are kept."""
    if request.param == "redis":
        return RedisGenerationStore(redis, "orders", code=1)
    return PostgresGenerationStore(pool, "revenue_by_day", (REVENUE,), code=1)


@pytest.fixture
def fresh_log(connection: asyncpg.Connection[asyncpg.Record]) -> FreshLog:
    return FreshLog(connection)


@pytest.fixture
async def session(projector_settings: Settings, fresh_log: FreshLog) -> AsyncIterator[LogSession]:
    """Reads that log, and lets it know when it was told of an event."""
    async with open_session(projector_settings, fresh_log.notified.set) as session:
        yield session
