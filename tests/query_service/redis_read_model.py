"""A read model in Redis that a test writes itself, in place of a projector."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from projector.projections.orders import ORDERS
from shared.read_models.keys import PartitionKeys, sort_key

NOON = datetime(2011, 1, 4, 12, 0, tzinfo=UTC)


def checkpoint(position: int, log_id: UUID | None = None, ready_at: int = 0, generation: int = 1) -> dict[Any, Any]:
    """The fields of `meta`; of the log 0 unless given."""
    known = UUID(int=0) if log_id is None else log_id
    fields = {"log_id": known.hex, "position": position, "ready_at": ready_at, "generation": generation}
    return fields | {"code": ORDERS.version}


async def write(
    redis: Redis, keys: PartitionKeys, position: int, documents: Mapping[str, str], log_id: UUID | None = None
) -> None:
    """Writes bodies of one instant, by id, their entries in the index `all` and the checkpoint in one step. The summary
    of a document is its body."""
    async with redis.pipeline(transaction=True) as batch:
        for name, body in documents.items():
            fields: dict[Any, Any] = {"document": body, "summary": body, "version": 1}
            batch.hset(keys.document(name), mapping=fields)
            batch.zadd(keys.index("all"), {sort_key(NOON, name): 0})
        batch.hset(keys.meta, mapping=checkpoint(position, log_id, generation=keys.generation))
        await batch.execute()


async def write_heartbeat(redis: Redis, keys: PartitionKeys, age_seconds: int = 0, **fields: str) -> None:
    seconds, _ = await redis.time()
    values: dict[Any, Any] = {"at": (seconds - age_seconds) * 1_000, "worker": "w", "state": "active", **fields}
    await redis.hset(keys.heartbeat, mapping=values)


async def scripts_run(redis: Redis) -> int:
    statistics = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})
    return int(statistics["calls"])
