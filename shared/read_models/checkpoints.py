"""Reads a read model's checkpoint and generations from Redis."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from shared.read_models.keys import CHECKPOINT_FIELDS, PARTITIONS_FIELD, Checkpoint, Generations, PartitionKeys


async def read_generations(redis: Redis, keys: PartitionKeys) -> Generations:
    """Raises `shared.redis.REDIS_DOWN`."""
    found: dict[Any, Any] = await redis.hgetall(keys.generations)
    fields = {name.decode(): int(value) for name, value in found.items()}
    partitions = {
        int(name.removeprefix(PARTITIONS_FIELD)): count
        for name, count in fields.items()
        if name.startswith(PARTITIONS_FIELD)
    }
    others = (fields.get("previous"), fields.get("building"), fields.get("dropping"))
    return Generations(fields.get("live", 1), *others, partitions)


async def read_checkpoint(redis: Redis, keys: PartitionKeys) -> Checkpoint | None:
    """Where the read model is now. Raises `shared.redis.REDIS_DOWN`."""
    return Checkpoint.parse(await redis.hmget(keys.meta, CHECKPOINT_FIELDS))
