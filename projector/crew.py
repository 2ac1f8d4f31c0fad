"""Every projection of a projector process: each with a store, a worker and a monitor of its own, so that one that is
stuck stops no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from redis.asyncio import Redis

from projector.lag import Monitor
from projector.projections import PROJECTIONS, Registered
from projector.stores import Shelf
from projector.stores.postgres_shelf import PostgresShelf
from projector.stores.redis import RedisShelf
from projector.worker import Worker
from shared.settings import Settings
from shared.web import NotReady


class Crew:
    def __init__(self, settings: Settings, redis: Redis, database: asyncpg.Pool[asyncpg.Record]) -> None:
        self._workers: list[Worker[Any]] = []
        self._monitors: list[Monitor] = []
        for registered in PROJECTIONS:
            projection = registered.projection
            shelf = shelf_of(registered, redis, database)
            worker = Worker(settings, projection, shelf)
            self._workers.append(worker)
            self._monitors.append(Monitor(projection.name, shelf, database, worker, settings.heartbeat_seconds))

    async def ready(self) -> None:
        """Raises `NotReady` unless every worker does its work or stands by for the one that does."""
        if idle := [worker for worker in self._workers if not worker.working]:
            raise NotReady(" ".join(f"{worker.projection}: {worker.reason}" for worker in idle))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Until the block ends; the batches in hand are finished."""
        working = [asyncio.create_task(worker.run(), name=f"projector-{worker.projection}") for worker in self._workers]
        monitoring = [asyncio.create_task(monitor.run(), name="projector-lag") for monitor in self._monitors]
        try:
            yield
        finally:
            for worker in self._workers:
                worker.stop()
            for monitor in self._monitors:
                monitor.stop()
            for task in monitoring:
                task.cancel()
            await asyncio.wait([*working, *monitoring])


def shelf_of(registered: Registered, redis: Redis, database: asyncpg.Pool[asyncpg.Record]) -> Shelf:
    """Where the projection's read model is kept."""
    projection = registered.projection
    if registered.kept_in == "redis":
        return RedisShelf(redis, projection.name, projection.version)
    return PostgresShelf(database, projection.name, projection.sums, projection.version)
