"""Administration of one read model: rebuild, verify, roll back, drop its generations."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from redis.asyncio import Redis
from rich.console import Console

from cli.failure import CommandFailed
from cli.projection_admin.progress import progress_bars
from cli.settings import load_settings
from cli.stack.addresses import find_database, find_redis
from projector.generation_manager import GenerationManager, OperationRefused
from projector.projection import Projection
from projector.projections import PROJECTIONS, RegisteredProjection
from projector.routing import PoisonEvent
from projector.stores.factory import open_generation_store
from projector.stores.generation_store import GenerationStore
from projector.stores.store import UNAVAILABLE, CheckpointMismatch, Fenced, Store, VersionMismatch
from projector.verification import CheckpointMovedBack, Comparison, Report, compare
from shared.gc_tuning import tune_gc
from shared.logs import configure_logs
from shared.postgres import create_pool
from shared.redis import create_redis
from shared.settings import Settings


def administer(name: str, data_dir: Path | None, action: Callable[[ProjectionAdmin], Awaitable[None]]) -> None:
    """Run `action` on the read model of that name. Raises CommandFailed."""
    registered = PROJECTIONS.get(name)
    if registered is None:
        known = ", ".join(PROJECTIONS)
        raise CommandFailed(f"there is no read model {name!r}; there are {known}")
    redis_url = find_redis(data_dir)
    settings = load_settings(redis_url=redis_url, database_url=find_database(data_dir, "projector"))
    configure_logs("projections", "WARNING")
    tune_gc()
    try:
        uvloop.run(_run(action, registered, settings))
    except (
        OperationRefused,
        PoisonEvent,
        VersionMismatch,
        Fenced,
        CheckpointMismatch,
        CheckpointMovedBack,
        asyncpg.PostgresError,
    ) as error:
        raise CommandFailed(str(error)) from error
    except UNAVAILABLE as error:
        raise CommandFailed(f"PostgreSQL or Redis is away: {error!r}") from error
    except sqlite3.Error as error:  # the disk is full
        raise CommandFailed(f"the temporary file of the verification cannot be written: {error}") from error


async def _run(
    action: Callable[[ProjectionAdmin], Awaitable[None]], registered: RegisteredProjection, settings: Settings
) -> None:
    async with open_admin(settings, registered) as admin:
        await action(admin)


class ProjectionAdmin:
    """Each method prints what it did. Raises CommandFailed where it was not done, or differences were found."""

    def __init__(
        self, settings: Settings, registered: RegisteredProjection, redis: Redis, database: asyncpg.Pool[asyncpg.Record]
    ) -> None:
        self.projection: Projection[Any] = registered.projection
        self.store = registered.store
        self.settings = settings
        self.redis = redis
        self.database = database
        self.generation_store: GenerationStore = open_generation_store(registered, redis, database)
        self.generation_manager = GenerationManager(settings, self.projection, self.generation_store)
        self.console = Console(highlight=False)

    async def rebuild(self) -> None:
        """Build a generation beside the live one, compare it with the log and switch to it."""
        compared: list[Comparison] = []

        with progress_bars(self.console) as report:

            async def compare(generation: int) -> Comparison:
                compared.append(await self.compare(generation, report))
                return compared[-1]

            number = await self.generation_manager.rebuild(partial(report, "building"), compare)
        self.console.print(f"{compared[-1]}\nqueries are answered from generation {number} now")

    async def verify(self) -> None:
        """Compare the live generation with the log."""
        generation = (await self.generation_store.generations()).live
        with progress_bars(self.console) as report:
            comparison = await self.compare(generation, report)
        if comparison.differences:
            raise CommandFailed(f"generation {generation}: {comparison}")
        self.console.print(f"generation {generation}, up to position {comparison.position}: {comparison}")

    async def rollback(self) -> None:
        """Let the previous generation catch up and switch to it."""
        with progress_bars(self.console) as report:
            number = await self.generation_manager.rollback(partial(report, "catching up"))
        self.console.print(f"queries are answered from generation {number} again")

    async def drop(self) -> None:
        """Remove every generation that is not live."""
        dropped = await self.generation_manager.drop()
        for number in dropped:
            self.console.print(f"dropped generation {number}")
        if not dropped:
            self.console.print("nothing to drop")

    async def stores(self, generation: int) -> list[Store]:
        """One for each partition of the generation."""
        partitions = (await self.generation_store.generations()).partitions_of(generation)
        return [self.generation_store.store(generation, partition, partitions) for partition in range(partitions)]

    async def live_stores(self) -> list[Store]:
        """One for each partition of the live generation."""
        return await self.stores((await self.generation_store.generations()).live)

    async def compare(self, generation: int, report: Report) -> Comparison:
        """Compare the generation with the log."""
        self.console.print(f"comparing generation {generation} with a plain fold of the log")
        stores = await self.stores(generation)
        if parked := sum([await store.count_parked() for store in stores]):
            self.console.print(f"{parked} documents are parked before an event that could not be applied")
        partitions = len(stores)
        inspections = [
            self.generation_store.inspection(generation, partition, partitions) for partition in range(partitions)
        ]
        return await compare(self.database, self.projection, inspections, report)


@asynccontextmanager
async def open_admin(settings: Settings, registered: RegisteredProjection) -> AsyncIterator[ProjectionAdmin]:
    """Connects to Redis and PostgreSQL for the duration of the block. Raises CommandFailed for a malformed address."""
    try:
        redis = create_redis(settings)
        database = await create_pool(settings, "projections", max_size=3)
    except ValueError as error:
        raise CommandFailed(f"REDIS_URL or DATABASE_URL is malformed: {error}") from error
    try:
        yield ProjectionAdmin(settings, registered, redis, database)
    finally:
        database.terminate()
        await redis.aclose()
