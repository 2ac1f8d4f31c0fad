"""Where each read model stands, and when its projector last said that it lives; wherever it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import asyncpg
from redis.asyncio import Redis

from query_service.reader import READ_SECONDS, ReadModelUnavailable
from shared.postgres import CONNECTION_LOST
from shared.read_model_keys import Checkpoint, Generations, PartitionKeys, read_checkpoint, read_generations
from shared.redis import REDIS_DOWN

_ASK_SECONDS = 5.0


class Heartbeat(NamedTuple):
    age_seconds: float  # by the clock of the server that also stamped it
    worker: str
    state: str


class Standing(NamedTuple):
    """`checkpoint` is None when there is no read model, `heartbeat` when there never was one."""

    checkpoint: Checkpoint | None
    heartbeat: Heartbeat | None
    generations: Generations

    @property
    def position(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.position


Ask: TypeAlias = Callable[[], Awaitable[Standing]]  # raises ReadModelUnavailable

_SQL = """
select m.log_id, m.position, m.serve_from, m.generation,
       extract(epoch from clock_timestamp() - h.beat_at)::float8 as age, h.worker, h.state,
       coalesce(g.live, 1) as live, g.previous, g.building
from (select $1::text as projection) as this
left join read_model_generations g on g.projection = this.projection
left join read_models m on m.projection = this.projection and m.generation = coalesce(g.live, 1)
left join read_model_heartbeats h on h.projection = this.projection
"""


async def in_redis(redis: Redis, keys: PartitionKeys) -> Standing:
    try:
        async with asyncio.timeout(READ_SECONDS), redis.pipeline(transaction=False) as pipeline:
            generations = await read_generations(redis, keys)
            checkpoint = await read_checkpoint(redis, keys.of(generations.live))
            pipeline.hmget(keys.heartbeat, ["at", "worker", "state"])
            pipeline.time()
            (at, worker, state), (seconds, microseconds) = await pipeline.execute()
    except REDIS_DOWN as error:
        raise ReadModelUnavailable from error
    if at is None:
        return Standing(checkpoint, None, generations)
    age = max(0.0, seconds + microseconds / 1e6 - int(at) / 1e3)
    return Standing(checkpoint, Heartbeat(age, worker.decode(), state.decode()), generations)


async def in_postgresql(pool: asyncpg.Pool[asyncpg.Record], projection: str) -> Standing:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            row = await pool.fetchrow(_SQL, projection)
    except CONNECTION_LOST as error:
        raise ReadModelUnavailable("PostgreSQL") from error
    assert row is not None, "the statement always gives a row"
    checkpoint = None if row["log_id"] is None else Checkpoint(*row[:4])
    heartbeat = None if row["age"] is None else Heartbeat(max(0.0, row["age"]), row["worker"], row["state"])
    return Standing(checkpoint, heartbeat, Generations(row["live"], row["previous"], row["building"]))
