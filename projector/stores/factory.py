"""Opens the store of a registered projection."""

from __future__ import annotations

import asyncpg
from redis.asyncio import Redis

from projector.projections import RegisteredProjection
from projector.stores.generation_store import GenerationStore
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.redis_generations import RedisGenerationStore


def open_generation_store(
    registered: RegisteredProjection, redis: Redis, database: asyncpg.Pool[asyncpg.Record]
) -> GenerationStore:
    projection = registered.projection
    if registered.store == "redis":
        return RedisGenerationStore(redis, projection.name, projection.version)
    return PostgresGenerationStore(database, projection.name, projection.rollups, projection.version)
