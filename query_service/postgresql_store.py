"""Read models in PostgreSQL: how the query service opens them, and their status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial

import asyncpg

from query_service.checkpoint_poller import CheckpointPoller
from query_service.fair_queue import FairQueue
from query_service.postgresql_reader import ANSWER_SECONDS, PostgresReader
from query_service.projection_status import (
    MAX_PARKED,
    Heartbeat,
    Parked,
    PartitionStatus,
    ProjectionStatus,
    StatusQuery,
    combine,
)
from query_service.read_model import Servers, StoredReadModel
from query_service.read_result import ReadModelUnavailable
from shared.postgres import CONNECTION_LOST
from shared.read_models import poison as poisons
from shared.read_models.keys import Checkpoint, Generations, row_name

READS = 2  # of each read model at once: fewer than the pool has connections

_STATUS = """
select m.log_id, m.position, m.ready_at, m.generation,
       extract(epoch from clock_timestamp() - h.beat_at)::float8 as age, h.worker, h.state, h.reason, h.poison,
       case when m.parked_revision <> '' then (
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


def in_postgresql(servers: Servers, name: str) -> StoredReadModel[PostgresReader]:
    status = partial(postgresql_status, servers.pool, name)
    signal = CheckpointPoller(partial(_position, status))
    queue = FairQueue(READS)
    return StoredReadModel(PostgresReader(servers.pool, name), status, signal, _keep_open, queue)


async def _keep_open() -> None:
    """All read models share the pool."""


async def _position(status: StatusQuery) -> int:
    return (await status()).position


async def postgresql_status(pool: asyncpg.Pool[asyncpg.Record], projection: str) -> ProjectionStatus:
    """Raises `ReadModelUnavailable`."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            rows = await pool.fetch(_STATUS, projection)
            records = [
                await pool.fetch(_PARKED, row_name(projection, nr), row["live"], MAX_PARKED) if row["parked"] else []
                for nr, row in enumerate(rows)
            ]
    except CONNECTION_LOST as error:
        raise ReadModelUnavailable("PostgreSQL") from error
    partitions = [_partition(row, parked) for row, parked in zip(rows, records, strict=True)]
    first = rows[0]
    counts = {int(number): count for number, count in json.loads(first["partitions"] or "{}").items()}
    return combine(Generations(first["live"], first["previous"], first["building"], partitions=counts), partitions)


def _partition(row: asyncpg.Record, records: Sequence[asyncpg.Record]) -> PartitionStatus:
    parked = Parked(row["parked"], [poisons.decode(record[0]) for record in records])
    checkpoint = None if row["log_id"] is None else Checkpoint(*row[:4])
    heartbeat = None
    if row["age"] is not None and row["age"] >= 0:
        poison = None if row["poison"] is None else poisons.decode(row["poison"])
        heartbeat = Heartbeat(row["age"], row["worker"], row["state"], row["reason"], poison)
    return PartitionStatus(checkpoint, heartbeat, parked)
