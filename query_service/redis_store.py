"""Read models in Redis: how the query service opens them, and their status."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from query_service.checkpoint_subscription import CheckpointSubscription
from query_service.coalescing_reader import READ_SECONDS, CoalescingReader
from query_service.projection_status import MAX_PARKED, Heartbeat, Parked, PartitionStatus, ProjectionStatus, combine
from query_service.read_model import Servers, StoredReadModel
from query_service.read_result import ReadModelUnavailable
from shared.read_models import poison as poisons
from shared.read_models.checkpoints import read_generations
from shared.read_models.keys import Checkpoint, PartitionKeys
from shared.redis import REDIS_DOWN


def in_redis(servers: Servers, name: str) -> StoredReadModel[CoalescingReader]:
    reader = CoalescingReader(servers.redis, name, servers.settings.remembered_document_bytes)
    signal = CheckpointSubscription(servers.redis, name)
    return StoredReadModel(reader, partial(redis_status, servers.redis, name), signal, reader.close)


async def redis_status(redis: Redis, projection: str) -> ProjectionStatus:
    """Raises `ReadModelUnavailable`."""
    first = PartitionKeys(projection)
    script = redis.register_script(_script())
    try:
        async with asyncio.timeout(READ_SECONDS):
            generations = await read_generations(redis, first)
            live = first.of(generations.live).each(generations.partitions_of(generations.live))
            found = await asyncio.gather(
                *(script([keys.meta, keys.heartbeat, keys.parked], [keys.documents, MAX_PARKED]) for keys in live)
            )
    except REDIS_DOWN as error:
        raise ReadModelUnavailable from error
    return combine(generations, [_partition(*one) for one in found])


@cache
def _script() -> str:
    return (files("query_service") / "status.lua").read_text("utf-8")


def _partition(
    checkpoint: list[Any], heartbeat: list[Any], now: tuple[Any, Any], parked: int, *records: bytes | None
) -> PartitionStatus:
    # A record that was removed meanwhile is None.
    of_parked = Parked(parked, [poisons.decode(record) for record in records if record])
    return PartitionStatus(Checkpoint.parse(checkpoint), _heartbeat(heartbeat, now), of_parked)


def _heartbeat(fields: list[Any], now: tuple[Any, Any]) -> Heartbeat | None:
    at, *texts, poison = fields
    if at is None or (age := int(now[0]) + int(now[1]) / 1e6 - int(at) / 1e3) < 0:
        return None
    worker, state, reason = ((text or b"").decode() for text in texts)
    return Heartbeat(age, worker, state, reason, poisons.decode(poison) if poison else None)
