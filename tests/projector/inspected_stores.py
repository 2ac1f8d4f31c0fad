"""Stores whose whole content a test can read, copy and put back: index entries, lines of rollups, documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any, TypeAlias

import asyncpg
from redis.asyncio import Redis

from projector.projection import Contribution, Entry, Projection
from projector.projections.orders import ORDERS
from projector.projections.revenue_by_day import REVENUE, REVENUE_BY_DAY
from projector.stores.postgres import PostgresStore
from projector.stores.redis import RedisStore
from projector.stores.store import Store
from shared.read_models.keys import Checkpoint, PartitionKeys

KEYS = PartitionKeys("orders")
TABLES = ("read_models", "read_model_documents", "read_model_parked", "read_model_generations", "revenue_by_day")

# (index, sort key): (1,), or (rollup, *key of a line): amounts
Listed: TypeAlias = dict[tuple[str, ...], tuple[int, ...]]
Copy: TypeAlias = Mapping[Any, Any]
NOTHING: Copy = {}


def listed(entries: Iterable[Entry]) -> Listed:
    """What a store has to hold for all these entries."""
    found: Listed = {}
    for name, entry in entries:
        key, amounts = ((name, *entry.key), entry.amounts) if isinstance(entry, Contribution) else ((name, entry), (1,))
        found[key] = tuple(map(add, found[key], amounts)) if key in found else amounts
    return found


async def load_all(store: Store, expected: Checkpoint, document_ids: Sequence[str]) -> dict[str, bytes]:
    """Those of the documents that there are, whatever their size."""
    loaded = await store.load(expected, document_ids, 2**62)
    assert loaded.keys() == {*document_ids}
    return {document_id: document for document_id, document in loaded.items() if document is not None}


class ConnectionCut(ConnectionError):
    """What a client gets when its connection is cut, whether what it sent was done or not."""


class InspectedRedis:
    """All of a Redis, with the orders in it."""

    projection: Projection[Any] = ORDERS

    def __init__(self, redis: Redis) -> None:
        self.store: Store = RedisStore(redis, KEYS)
        self._redis = redis

    async def listed(self) -> Listed:
        others = {KEYS.meta, KEYS.parked, KEYS.retry, KEYS.heartbeat}
        keys = [key.decode() async for key in self._redis.scan_iter(match=KEYS.prefix + "*", count=1_000)]
        indexes = [key for key in keys if key not in others and not key.startswith(KEYS.documents)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in indexes:
                pipeline.zrange(key, 0, -1)
            found = await pipeline.execute()
        return {
            (key.removeprefix(KEYS.prefix), entry.decode()): (1,)
            for key, entries in zip(indexes, found, strict=True)
            for entry in entries
        }

    async def copy(self) -> Copy:
        keys = [key async for key in self._redis.scan_iter(count=1_000)]
        async with self._redis.pipeline() as pipeline:
            for key in keys:
                pipeline.dump(key)
            return dict(zip(keys, await pipeline.execute(), strict=True))

    async def put_back(self, copy: Copy) -> None:
        """Instead of all that is there."""
        async with self._redis.pipeline() as pipeline:
            pipeline.flushall()
            for key, value in copy.items():
                pipeline.restore(key, 0, value)
            await pipeline.execute()


class InspectedPostgres:
    """All tables of read models, with the revenue by day in them. Copies need a superuser's connection."""

    projection: Projection[Any] = REVENUE_BY_DAY

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.store: Store = PostgresStore(pool, REVENUE_BY_DAY.name, [REVENUE])
        self._connection = connection

    async def listed(self) -> Listed:
        rows = await self._connection.fetch(
            "select day::text, currency, status, orders, placed, paid, cancelled from revenue_by_day"
        )
        return {(REVENUE.name, *row[:3]): tuple(map(int, row[3:])) for row in rows}

    async def copy(self) -> Copy:
        columns = ", ".join(f"(select json_agg(t)::text from {table} t) as {table}" for table in TABLES)
        row = await self._connection.fetchrow(f"select {columns}")
        assert row is not None
        return dict(row)

    async def put_back(self, copy: Copy) -> None:
        """Instead of all that is there."""
        async with self._connection.transaction():
            await self._connection.execute("; ".join(f"delete from {table}" for table in TABLES))
            for table in TABLES:
                rows = f"json_populate_recordset(null::{table}, $1::text::json)"
                if copy.get(table):
                    await self._connection.execute(f"insert into {table} select * from {rows}", copy[table])


InspectedStore: TypeAlias = InspectedRedis | InspectedPostgres
