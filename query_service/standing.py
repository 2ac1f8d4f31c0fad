"""Where each read model stands, and when its projector last said that it lives; wherever it is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeAlias

import asyncpg
from redis.asyncio import Redis

from query_service.reader import READ_SECONDS, ReadModelUnavailable
from shared.postgres import CONNECTION_LOST
from shared.read_models import poison as poisons
from shared.read_models.checkpoints import read_generations
from shared.read_models.keys import Checkpoint, Generations, PartitionKeys, row_name
from shared.read_models.poison import Poison
from shared.redis import REDIS_DOWN

_ASK_SECONDS = 5.0
MOST_SHOWN = 10  # of what is parked


class Heartbeat(NamedTuple):
    age_seconds: float  # by the clock of the server that also stamped it
    worker: str
    state: str
    reason: str = ""  # what keeps it where it is stuck
    poison: Poison | None = None  # the event, where it is one


class Parked(NamedTuple):
    """How many streams are parked, and the first of them by position."""

    streams: int = 0
    first: Sequence[Poison] = ()


class Part(NamedTuple):
    """Of one partition. `checkpoint` is None when there is no read model, `heartbeat` when there never was one."""

    checkpoint: Checkpoint | None
    heartbeat: Heartbeat | None
    parked: Parked


class Standing(NamedTuple):
    """All partitions together: as far as the last of them, as old as the oldest sign of life."""

    checkpoint: Checkpoint | None
    heartbeat: Heartbeat | None
    generations: Generations
    parked: Parked
    partitions: Sequence[Part]

    @property
    def position(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.position


Ask: TypeAlias = Callable[[], Awaitable[Standing]]  # raises ReadModelUnavailable

_SQL = """
select m.log_id, m.position, m.serve_from, m.generation,
       extract(epoch from clock_timestamp() - h.beat_at)::float8 as age, h.worker, h.state, h.reason, h.poison,
       case when m.parking <> '' then (
           select count(*) from read_model_parked k where k.projection = m.projection and k.generation = m.generation
       ) else 0 end as parked,
       live.generation as live, g.previous, g.building, g.partitions
from (select $1::text as projection) as this
left join read_model_generations g on g.projection = this.projection
cross join lateral (select coalesce(g.live, 1) as generation) as live
cross join lateral generate_series(0, coalesce((g.partitions->>live.generation::text)::integer, 1) - 1) as partition
cross join lateral (
    select this.projection || case when partition > 0 then '.' || partition else '' end as name
) as row
left join read_models m on m.projection = row.name and m.generation = live.generation
left join read_model_heartbeats h on h.projection = row.name
order by partition
"""
_PARKED = """
select poison from read_model_parked where projection = $1 and generation = $2 order by position limit $3
"""


async def in_redis(redis: Redis, projection: str) -> Standing:
    first = PartitionKeys(projection)
    script = redis.register_script(_script())
    try:
        async with asyncio.timeout(READ_SECONDS):
            generations = await read_generations(redis, first)
            live = first.of(generations.live).each(generations.partitions_of(generations.live))
            found = await asyncio.gather(
                *(script([keys.meta, keys.heartbeat, keys.parked], [keys.documents, MOST_SHOWN]) for keys in live)
            )
    except REDIS_DOWN as error:
        raise ReadModelUnavailable from error
    return _together(generations, [_part(*one) for one in found])


@cache
def _script() -> str:
    return (files("query_service.read_models") / "standing.lua").read_text("utf-8")


def _part(checkpoint: list[Any], beat: list[Any], now: tuple[Any, Any], count: int, *records: bytes | None) -> Part:
    # What was unparked in between is left out.
    parked = Parked(count, [poisons.decode(record) for record in records if record])
    heartbeat = None
    if beat[0] is not None:
        age = max(0.0, int(now[0]) + int(now[1]) / 1e6 - int(beat[0]) / 1e3)
        worker, state, reason = ((value or b"").decode() for value in beat[1:4])
        heartbeat = Heartbeat(age, worker, state, reason, poisons.decode(beat[4]) if beat[4] else None)
    return Part(Checkpoint.parse(checkpoint), heartbeat, parked)


def _together(generations: Generations, parts: Sequence[Part]) -> Standing:
    beats = [part.heartbeat for part in parts]
    heartbeat = None
    if None not in beats:
        known = [beat for beat in beats if beat is not None]
        # Who is stuck is named, and has to be looked at, also where another has not been heard of for longer.
        oldest = max(known, key=lambda beat: beat.age_seconds)
        heartbeat = next((beat for beat in known if beat.reason), oldest)._replace(age_seconds=oldest.age_seconds)
    first = sorted((poison for part in parts for poison in part.parked.first), key=lambda poison: poison.position)
    parked = Parked(sum(part.parked.streams for part in parts), first[:MOST_SHOWN])
    return Standing(Checkpoint.slowest([part.checkpoint for part in parts]), heartbeat, generations, parked, parts)


async def in_postgresql(pool: asyncpg.Pool[asyncpg.Record], projection: str) -> Standing:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            rows = await pool.fetch(_SQL, projection)
            records = [
                await pool.fetch(_PARKED, row_name(projection, nr), row["live"], MOST_SHOWN) if row["parked"] else []
                for nr, row in enumerate(rows)
            ]
    except CONNECTION_LOST as error:
        raise ReadModelUnavailable("PostgreSQL") from error
    parts = [_part_of(row, parked) for row, parked in zip(rows, records, strict=True)]
    first = rows[0]
    counts = {int(number): count for number, count in json.loads(first["partitions"] or "{}").items()}
    return _together(Generations(first["live"], first["previous"], first["building"], partitions=counts), parts)


def _part_of(row: asyncpg.Record, records: Sequence[asyncpg.Record]) -> Part:
    parked = Parked(row["parked"], [poisons.decode(record[0]) for record in records])
    checkpoint = None if row["log_id"] is None else Checkpoint(*row[:4])
    heartbeat = None
    if row["age"] is not None:
        poison = None if row["poison"] is None else poisons.decode(row["poison"])
        heartbeat = Heartbeat(max(0.0, row["age"]), row["worker"], row["state"], row["reason"], poison)
    return Part(checkpoint, heartbeat, parked)
