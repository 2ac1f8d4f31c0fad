"""Checkpoints of read models as their projectors report them to PostgreSQL, for processes that reach no read model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.eventstore.log import Connection
from shared.read_models.keys import Checkpoint

# Deletes partitions that are there no more: their lag would grow for ever.
_REPORT = """
with gone as (delete from projection_progress where projection = $1 and partition >= $6)
insert into projection_progress as kept (projection, partition, log_id, position, ready_at, reported_at)
values ($1, $2, $3, $4, $5, clock_timestamp())
on conflict (projection, partition) do update
set log_id = excluded.log_id, position = excluded.position, ready_at = excluded.ready_at,
    reported_at = excluded.reported_at
"""
_LAGS = """
select p.projection,
       case when bool_and(coalesce(e.recorded_at <= clock_timestamp(), false))
            then max(extract(epoch from clock_timestamp() - e.recorded_at)) end::float8,
       min(p.position), h.position
from projection_progress p
join log_head h on h.log_id = p.log_id
left join events e on e.position = p.position + 1
where p.projection = any($1) and p.position >= p.ready_at and p.position < h.position
group by p.projection, h.position
"""


class ReadModelLag(NamedTuple):
    projection: str
    seconds: float | None  # since the oldest event that it does not show was recorded; None: not known
    position: int = 0  # of the last event that it shows
    head: int = 0  # of the log


async def report(
    connection: Connection, projection: str, checkpoint: Checkpoint | None, partition: int = 0, of: int = 1
) -> None:
    """Says where one partition `of` so many of a read model is; None: there is no read model."""
    values = (None, 0, 0) if checkpoint is None else checkpoint[:3]
    await connection.execute(_REPORT, projection, partition, *values, of)


async def read_behind(connection: Connection, projections: Sequence[str]) -> list[ReadModelLag]:
    """Those of the read models that are behind the log's true head, by their slowest partition.

    The age is measured here and now, so that of a projector that died grows. One that was never reported, or is being
    built (anew), is not behind: it is not there yet, and answers no query.
    """
    return [ReadModelLag(*row) for row in await connection.fetch(_LAGS, projections)]
