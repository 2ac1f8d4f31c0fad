"""The read model of revenue, which is kept in PostgreSQL: lines of sums by day, currency and status."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any, NamedTuple

import asyncpg

from query_service.reader import ReadModelUnavailable
from query_service.reading import At, Reading
from shared.postgres import CONNECTION_LOST
from shared.read_models.keys import Checkpoint

NAME = "revenue_by_day"
_ASK_SECONDS = 5.0

# One statement sees one state of the database, so the lines belong to the checkpoint: to the lowest of the partitions'.
_LINES = """
with live as (
    select coalesce(g.live, 1) as generation, coalesce((g.partitions->>g.live::text)::integer, 1) as partitions
    from (select 'revenue_by_day' as projection) as this
    left join read_model_generations g on g.projection = this.projection
), parts as (
    select live.generation, m.log_id, m.position, m.serve_from,
           case when m.parking <> '' then (
               select count(*) from read_model_parked k
               where k.projection = m.projection and k.generation = m.generation
           ) else 0 end as parked
    from live cross join lateral generate_series(0, live.partitions - 1) as partition
    left join read_models m on m.generation = live.generation
        and m.projection = 'revenue_by_day' || case when partition > 0 then '.' || partition else '' end
), together as (
    select (array_agg(log_id))[1] as log_id, min(position) as position,
           coalesce(max(serve_from) filter (where position < serve_from), 0) as serve_from,
           generation, sum(parked)::bigint as parked
    from parts group by generation having count(log_id) = count(*) and count(distinct log_id) = 1
)
select m.log_id, m.position, m.serve_from, m.generation, m.parked,
       r.day, r.currency, r.status, r.orders, r.placed, r.paid, r.cancelled
from together m
left join revenue_by_day r
    on r.generation = m.generation and r.day between $1 and $2 and ($3::text is null or r.currency = $3)
order by r.day, r.currency, r.status
"""


class Line(NamedTuple):
    """Amounts are in minor units."""

    day: date
    currency: str
    status: str
    orders: int
    placed: int
    paid: int
    cancelled: int


class Lines(NamedTuple):
    """`parked` orders count as they were before an event that could not be applied, or not at all."""

    lines: list[Line]
    parked: int


class Revenue:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def between(self, first: date, last: date, currency: str | None) -> Reading[Lines]:
        """The lines of those days, both included, by day, currency and status. Raises `ReadModelUnavailable`."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                rows = await self._pool.fetch(_LINES, first, last, currency)
        except CONNECTION_LOST as error:
            raise ReadModelUnavailable("PostgreSQL") from error
        if not rows:
            return Reading(None, Lines([], 0))
        checkpoint = Checkpoint(*rows[0][:4])
        lines = [_line(row[5:]) for row in rows if row["day"] is not None]
        return Reading(At(checkpoint, checkpoint.token.encode()), Lines(lines, rows[0]["parked"]))


def _line(columns: tuple[Any, ...]) -> Line:
    day, currency, status, *amounts = columns
    return Line(day, currency, status, *map(int, amounts))
