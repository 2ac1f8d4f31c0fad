"""`orders projections rebuild / verify / rollback / drop`: looking after the generations of a read model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import asyncpg
import uvloop
from pydantic import ValidationError
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cli.stack.addresses import NoDatabase, find_database
from cli.stack.descriptor import running_stack
from projector.crew import shelf_of
from projector.folding import PoisonEvent
from projector.generations import Caretaker, Refused
from projector.projection import Projection
from projector.projections import PROJECTIONS, Registered
from projector.stores import AWAY, Fenced, Moved, OtherCode, Shelf, Store
from projector.verification import Comparison, Report, orders, revenue_by_day
from shared.gc_tuning import tune_gc
from shared.logs import configure_logs
from shared.postgres import connect, create_pool
from shared.read_models.keys import PartitionKeys
from shared.redis import create_redis
from shared.settings import Settings

Deed = Literal["rebuild", "verify", "rollback", "drop"]


class Failed(Exception):
    """It was not done, or the comparison found differences; the message says why."""


def do(deed: Deed, name: str, data_dir: Path) -> None:
    """Print what was done. Raises Failed."""
    work(name, data_dir, {"rebuild": _rebuild, "verify": _verify, "rollback": _rollback, "drop": _drop}[deed])


def work(name: str, data_dir: Path, deed: Callable[[Desk], Awaitable[None]]) -> None:
    """Do it with the read model of that name. Raises Failed."""
    registered = next((one for one in PROJECTIONS if one.projection.name == name), None)
    if registered is None:
        known = ", ".join(one.projection.name for one in PROJECTIONS)
        raise Failed(f"there is no read model {name!r}; there are {known}")
    configure_logs("projections", "WARNING")
    try:
        settings = _settings(data_dir)
        tune_gc()
        uvloop.run(_at_a_desk(deed, registered, settings))
    except (Refused, NoDatabase, PoisonEvent, OtherCode, Fenced, Moved, ValueError, asyncpg.PostgresError) as error:
        raise Failed(str(error)) from error
    except AWAY as error:
        raise Failed(f"PostgreSQL or Redis is away: {error!r}") from error


def _settings(data_dir: Path) -> Settings:
    stack = running_stack(data_dir)
    redis_url = os.environ.get("REDIS_URL") or (stack.redis_url if stack else None)
    if not redis_url:
        raise NoDatabase(f"no Redis: set REDIS_URL, or start a stack (nothing runs in {data_dir})")
    given: dict[str, Any] = {"database_url": find_database(data_dir, "projector"), "redis_url": redis_url}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise Failed(str(error)) from error


class Desk:
    """What every deed works with."""

    def __init__(
        self, settings: Settings, registered: Registered, redis: Redis, database: asyncpg.Pool[asyncpg.Record]
    ) -> None:
        self.projection: Projection[Any] = registered.projection
        self.kept_in = registered.kept_in
        self.settings = settings
        self.redis = redis
        self.database = database
        self.shelf: Shelf = shelf_of(registered, redis, database)
        self.caretaker = Caretaker(settings, self.projection, self.shelf)
        self.console = Console(highlight=False)

    async def stores(self, generation: int) -> list[Store]:
        """Of every partition."""
        partitions = (await self.shelf.generations()).partitions_of(generation)
        return [self.shelf.store(generation, partition, partitions) for partition in range(partitions)]

    async def live_stores(self) -> list[Store]:
        return await self.stores((await self.shelf.generations()).live)

    async def compare(self, generation: int, report: Report) -> Comparison:
        self.console.print(f"comparing generation {generation} with a plain fold of the log")
        stores = await self.stores(generation)
        if parked := sum([await store.count_parked() for store in stores]):
            self.console.print(f"{parked} streams are parked before an event that could not be applied")
        name = self.projection.name
        log = await connect(self.settings, "projections-verify")
        try:
            if name == revenue_by_day.NAME:
                return await revenue_by_day.compare(log, generation, len(stores), report)
            every = PartitionKeys(name, generation=generation).each(len(stores))
            return await orders.compare(log, self.redis, [keys.prefix for keys in every], report)
        finally:
            log.terminate()


@asynccontextmanager
async def open_desk(settings: Settings, registered: Registered) -> AsyncIterator[Desk]:
    redis = create_redis(settings)
    database = await create_pool(settings, "projections", max_size=3)
    try:
        yield Desk(settings, registered, redis, database)
    finally:
        database.terminate()
        await redis.aclose()


async def _at_a_desk(deed: Callable[[Desk], Awaitable[None]], registered: Registered, settings: Settings) -> None:
    async with open_desk(settings, registered) as desk:
        await deed(desk)


async def _rebuild(desk: Desk) -> None:
    compared: list[Comparison] = []

    with _progress(desk.console) as report:

        async def compare(generation: int) -> Comparison:
            compared.append(await desk.compare(generation, report))
            return compared[-1]

        number = await desk.caretaker.rebuild(partial(report, "building"), compare)
    desk.console.print(f"{compared[-1]}\nqueries are answered from generation {number} now")


async def _verify(desk: Desk) -> None:
    generation = (await desk.shelf.generations()).live
    with _progress(desk.console) as report:
        comparison = await desk.compare(generation, report)
    if comparison.differences:
        raise Failed(f"generation {generation}: {comparison}")
    desk.console.print(f"generation {generation}, up to position {comparison.position}: {comparison}")


async def _rollback(desk: Desk) -> None:
    with _progress(desk.console) as report:
        number = await desk.caretaker.rollback(partial(report, "catching up"))
    desk.console.print(f"queries are answered from generation {number} again")


async def _drop(desk: Desk) -> None:
    dropped = await desk.caretaker.drop()
    for number in dropped:
        desk.console.print(f"dropped generation {number}")
    if not dropped:
        desk.console.print("nothing to drop")


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Draws a bar for each thing that is done while the block runs."""
    what = TextColumn("{task.description}")
    with Progress(what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Remaining(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, first=done)
            bars.update(tasks[what], completed=done, total=total)

        yield report


class _Remaining(ProgressColumn):
    """At the rate there was so far. The one that comes with `rich` forgets that when the total grows, as a log does."""

    def render(self, task: Task) -> Text:
        done, elapsed, left = task.completed - task.fields["first"], task.elapsed, task.remaining
        if left == 0:
            return Text("0:00:00", "progress.remaining")
        if not left or not elapsed or not done:
            return Text("-:--:--", "progress.remaining")
        return Text(str(timedelta(seconds=round(elapsed * left / done))), "progress.remaining")
