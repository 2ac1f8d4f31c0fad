"""The generations of a read model in PostgreSQL; every step is one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

import asyncpg

from projector.projection import Rollup
from projector.stores.generation_store import is_no_older
from projector.stores.postgres import PostgresStore, checkpoint_of
from projector.stores.postgres_inspection import PostgresInspection
from shared.read_models.keys import Checkpoint, Generations, row_name

_READ = "select live, previous, building, partitions from read_model_generations where projection = $1"
_INITIALISE = """
insert into read_model_generations (projection, partitions)
select $1, jsonb_build_object('1', $2::integer)
where not exists (select from read_models where projection = $1) on conflict do nothing
"""
_ENSURE = "insert into read_model_generations (projection) values ($1) on conflict do nothing"
_LOCK = _READ + " for update"
_BEGIN = """
update read_model_generations
set last = case when building is null then last + 1 else last end, building = coalesce(building, last + 1),
    partitions = case when building is null and $2 > 1
        then partitions || jsonb_build_object((last + 1)::text, $2::integer) else partitions end
where projection = $1 returning building
"""
# Locks the live one: until the switch is committed it goes no further, so no query sees more of it than of the other.
_STANDINGS = """
select log_id, position, ready_at, generation, parked_revision from read_models
where projection = any($1) and generation = any($2) order by projection, generation for update
"""
_SWITCH = """
update read_model_generations set live = $2, previous = live, building = nullif(building, $2) where projection = $1
"""
_RETIRE = """
update read_model_generations
set previous = nullif(previous, $2), building = nullif(building, $2), partitions = partitions - $2::integer::text
where projection = $1
"""
_REMOVE = "delete from read_models where projection = any($1) and generation = $2"


class PostgresGenerationStore:
    """Methods are those of `projector.stores.generation_store.GenerationStore`."""

    def __init__(
        self, pool: asyncpg.Pool[asyncpg.Record], projection: str, rollups: tuple[Rollup, ...], code: int
    ) -> None:
        self._pool = pool
        self._projection = projection
        self._rollups = rollups
        self._code = code

    async def generations(self) -> Generations:
        row = await self._pool.fetchrow(_READ, self._projection)
        return Generations() if row is None else _generations(row)

    async def initialise(self, partitions: int) -> Generations:
        await self._pool.execute(_INITIALISE, self._projection, partitions)
        return await self.generations()

    def store(
        self, generation: int, partition: int = 0, partitions: int = 1, *, announce: bool = True
    ) -> PostgresStore:
        del announce  # nothing is published: waiting queries poll
        return PostgresStore(self._pool, self._projection, self._rollups, self._code, generation, partition, partitions)

    def inspection(self, generation: int, partition: int = 0, partitions: int = 1) -> PostgresInspection:
        return PostgresInspection(self._pool, self._projection, self._rollups, generation, partition, partitions)

    async def begin(self, partitions: int) -> int:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_ENSURE, self._projection)
            return int(await connection.fetchval(_BEGIN, self._projection, partitions))

    async def checkpoints(self, generation: int) -> Sequence[Checkpoint | None]:
        del generation
        return ()  # `switch` compares all of them itself, in one statement

    async def switch(self, live: int, other: int, seen: Sequence[Checkpoint | None] = ()) -> bool:
        del seen
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK, self._projection)
            if row is None or row["live"] != live:
                return False
            generations = _generations(row)
            names = self._names(max(generations.partitions_of(live), generations.partitions_of(other)))
            rows = await connection.fetch(_STANDINGS, names, [live, other])
            to = [checkpoint_of(row) for row in rows if row["generation"] == other]
            start = [checkpoint_of(row) for row in rows if row["generation"] == live]
            if len(to) != generations.partitions_of(other) or not is_no_older(to, start):
                return False
            await connection.execute(_SWITCH, self._projection, other)
        return True

    async def drop(self, generation: int) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK, self._projection)
            if row is None or row["live"] == generation:
                return False
            partitions = _generations(row).partitions_of(generation)
            await connection.execute(_REMOVE, self._names(partitions), generation)
            await self.store(generation, 0, partitions).clear(connection)
            await connection.execute(_RETIRE, self._projection, generation)
        return True

    def _names(self, partitions: int) -> list[str]:
        return [row_name(self._projection, partition) for partition in range(partitions)]

    async def reconnect(self) -> None:
        # Each dead one would otherwise cost a time-out of its own, one after the other.
        await self._pool.expire_connections()


def _generations(row: asyncpg.Record) -> Generations:
    live, previous, building, partitions = row
    counts = {int(number): count for number, count in json.loads(partitions).items()}
    return Generations(live, previous, building, partitions=counts)
