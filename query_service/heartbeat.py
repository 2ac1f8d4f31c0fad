"""The active projector's sign of life, as it left it in Redis."""

from __future__ import annotations

from typing import NamedTuple

from redis.asyncio import Redis

from shared.read_model_keys import PartitionKeys


class Heartbeat(NamedTuple):
    age_seconds: float  # by Redis's clock, which also stamped it
    worker: str
    state: str


async def read_heartbeat(redis: Redis, keys: PartitionKeys) -> Heartbeat | None:
    """None when there never was one. Raises `shared.redis.REDIS_DOWN`."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.hmget(keys.heartbeat, ["at", "worker", "state"])
        pipeline.time()
        (at, worker, state), (seconds, microseconds) = await pipeline.execute()
    if at is None:
        return None
    now = seconds + microseconds / 1e6
    return Heartbeat(max(0.0, now - int(at) / 1e3), worker.decode(), state.decode())
