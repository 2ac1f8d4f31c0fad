"""The generations of a read model in PostgreSQL; every step is one transaction."""

from __future__ import annotations

import asyncpg

from projector.projection import Sums
from projector.stores.postgres import PostgresStore
from shared.read_model_keys import Generations

_READ = "select live, previous, building from read_model_generations where projection = $1"
_ENSURE = "insert into read_model_generations (projection) values ($1) on conflict do nothing"
_LOCK = _READ + " for update"
_ADD = """
update read_model_generations
set last = case when building is null then last + 1 else last end, building = coalesce(building, last + 1)
where projection = $1 returning building
"""
# Locks the live one: until the switch is committed it goes no further, so nobody sees more of it than of the other.
_STANDINGS = """
select generation, log_id, position, serve_from from read_models
where projection = $1 and generation = any($2) order by generation for update
"""
_SWITCH = """
update read_model_generations set live = $2, previous = live, building = nullif(building, $2) where projection = $1
"""
_RETIRE = """
update read_model_generations set previous = nullif(previous, $2), building = nullif(building, $2)
where projection = $1
"""
_REMOVE = "delete from read_models where projection = $1 and generation = $2"


class PostgresShelf:
    """Methods are those of `projector.stores.Shelf`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], projection: str, sums: tuple[Sums, ...], code: int) -> None:
        self._pool = pool
        self._projection = projection
        self._sums = sums
        self._code = code

    async def generations(self) -> Generations:
        row = await self._pool.fetchrow(_READ, self._projection)
        return Generations() if row is None else Generations(*row)

    def store(self, generation: int, *, announce: bool = True) -> PostgresStore:
        del announce  # nothing is published: who waits looks
        return PostgresStore(self._pool, self._projection, self._sums, self._code, generation)

    async def add(self) -> int:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_ENSURE, self._projection)
            return int(await connection.fetchval(_ADD, self._projection))

    async def switch(self, live: int, other: int) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            generations = await connection.fetchrow(_LOCK, self._projection)
            if generations is None or generations["live"] != live:
                return False
            rows = await connection.fetch(_STANDINGS, self._projection, [live, other])
            standings = {row["generation"]: row for row in rows if row["log_id"] is not None}
            to, start = standings.get(other), standings.get(live)
            if to is None or to["position"] < to["serve_from"]:
                return False
            if start is not None and start["log_id"] == to["log_id"] and start["position"] > to["position"]:
                return False
            await connection.execute(_SWITCH, self._projection, other)
        return True

    async def drop(self, generation: int) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            generations = await connection.fetchrow(_LOCK, self._projection)
            if generations is None or generations["live"] == generation:
                return False
            await connection.execute(_REMOVE, self._projection, generation)
            await self.store(generation).clear(connection)
            await connection.execute(_RETIRE, self._projection, generation)
        return True

    async def reconnect(self) -> None:
        # Each dead one would otherwise cost a time-out of its own, one after the other.
        await self._pool.expire_connections()
