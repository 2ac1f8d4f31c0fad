"""The read model of revenue, which is kept in PostgreSQL: lines of sums by day, currency and status."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any, NamedTuple

import asyncpg

from query_service.reader import At, Reading, ReadModelUnavailable
from shared.postgres import CONNECTION_LOST
from shared.read_model_keys import Checkpoint

NAME = "revenue_by_day"
_ASK_SECONDS = 5.0

# One statement sees one state of the database, so the lines belong to the checkpoint.
_LINES = """
select m.log_id, m.position, m.serve_from, m.generation,
       r.day, r.currency, r.status, r.orders, r.placed, r.paid, r.cancelled
from read_models m
left join revenue_by_day r
    on r.generation = m.generation and r.day between $1 and $2 and ($3::text is null or r.currency = $3)
where m.projection = 'revenue_by_day'
  and m.generation = coalesce((select live from read_model_generations where projection = 'revenue_by_day'), 1)
  and m.log_id is not null
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


class Revenue:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def between(self, first: date, last: date, currency: str | None) -> Reading[list[Line]]:
        """The lines of those days, both included, by day, currency and status. Raises `ReadModelUnavailable`."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                rows = await self._pool.fetch(_LINES, first, last, currency)
        except CONNECTION_LOST as error:
            raise ReadModelUnavailable("PostgreSQL") from error
        if not rows:
            return Reading(None, [])
        checkpoint = Checkpoint(*rows[0][:4])
        lines = [_line(row[4:]) for row in rows if row["day"] is not None]
        return Reading(At(checkpoint, checkpoint.token.encode()), lines)


def _line(columns: tuple[Any, ...]) -> Line:
    day, currency, status, *amounts = columns
    return Line(day, currency, status, *map(int, amounts))
