"""What is parked, and what was asked to be tried again, of one generation of a read model in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.stores.store import Batch, CheckpointMismatch
from shared.read_models import poison as poisons
from shared.read_models.keys import Checkpoint
from shared.read_models.poison import Poison

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_LOAD = """
select m.log_id, m.position as reached, m.parked_revision, p.poison
from read_models m
left join read_model_parked p on p.projection = m.projection and p.generation = m.generation
where m.projection = $1 and m.generation = $2
order by p.position
"""
_COUNT = "select count(*) from read_model_parked where projection = $1 and generation = $2"
_PARK = """
insert into read_model_parked (projection, generation, document_id, position, poison)
select $1, $2, id, position, poison::json
from unnest($3::text[], $4::bigint[], $5::text[]) as new (id, position, poison)
on conflict (projection, generation, document_id) do update
set position = excluded.position, poison = excluded.poison
"""
_UNPARK = "delete from read_model_parked where projection = $1 and generation = $2 and document_id = any($3)"
_CLEAR = "delete from read_model_parked where projection = any($1) and generation = $2"
_ASK = """
update read_models set retries = array_append(array_remove(retries, $3), $3) where projection = $1 and generation = $2
"""
_ASKED = "select retries from read_models where projection = $1 and generation = $2 and retries <> '{}'"
_RETRIED = """
update read_models set retries = array(select unnest(retries) except select unnest($3::text[]))
where projection = $1 and generation = $2
"""


class PostgresParking:
    """Methods that have the name of one of `projector.stores.store.Store` are that."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], projection: str, generation: int) -> None:
        self._pool = pool
        self._key = (projection, generation)

    async def write(self, connection: Connection, batch: Batch) -> None:
        if batch.parked:
            records = [poisons.encode(poison).decode() for poison in batch.parked.values()]
            positions = [poison.position for poison in batch.parked.values()]
            await connection.execute(_PARK, *self._key, [*batch.parked], positions, records)
        if batch.unparked:
            await connection.execute(_UNPARK, *self._key, [*batch.unparked])

    async def clear(self, connection: Connection, names: list[str]) -> None:
        """All of the partitions of those names."""
        await connection.execute(_CLEAR, names, self._key[1])

    async def parked(self, expected: Checkpoint) -> list[Poison]:
        rows = await self._pool.fetch(_LOAD, *self._key)
        found = (expected.log_id, expected.position, expected.parked_revision)
        if not rows or tuple(rows[0])[:3] != found:
            raise CheckpointMismatch
        return [poisons.decode(row["poison"]) for row in rows if row["poison"] is not None]

    async def count_parked(self) -> int:
        return int(await self._pool.fetchval(_COUNT, *self._key))

    async def ask_retry(self, document_id: str) -> None:
        await self._pool.execute(_ASK, *self._key, document_id)

    async def retries(self) -> frozenset[str]:
        return frozenset(await self._pool.fetchval(_ASKED, *self._key) or ())

    async def retried(self, asked: Collection[str]) -> None:
        await self._pool.execute(_RETRIED, *self._key, [*asked])
