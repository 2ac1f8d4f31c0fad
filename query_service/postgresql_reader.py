"""Reads a read model in PostgreSQL: a document by its id, and the lines of its rollups.

One statement sees one state of the database, so what it returns belongs to the checkpoint that it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from query_service.read_result import Document, ReadModelUnavailable, ReadPosition, ReadResult, RollupLines
from shared.postgres import CONNECTION_LOST
from shared.read_models.keys import Checkpoint, partition_of

ANSWER_SECONDS = 5.0
MAX_LINES = 10_000  # of a rollup in one answer

# The partitions of the live generation. $1: the read model's name.
_PARTITIONS = """
with live as (
    select this.projection, coalesce(g.live, 1) as generation,
           coalesce((g.partitions->>g.live::text)::integer, 1) as partitions
    from (select $1::text as projection) as this
    left join read_model_generations g on g.projection = this.projection
), parts as (
    select live.generation, number, m.projection, m.log_id, m.position, m.ready_at, m.code, m.parked_revision
    from live cross join lateral generate_series(0, live.partitions - 1) as number
    left join read_models m on m.generation = live.generation
        and m.projection = live.projection || case when number > 0 then '.' || number else '' end
)
"""
_DOCUMENT = f"""
{_PARTITIONS}
select p.log_id, p.position, p.ready_at, p.generation, p.code,
       d.document::text as document, d.document->>'version' as version, k.poison::text as poison
from parts p
left join read_model_documents d
    on d.projection = p.projection and d.generation = p.generation and d.document_id = $2
left join read_model_parked k
    on k.projection = p.projection and k.generation = p.generation and k.document_id = $2
order by number
"""  # noqa: S608 - of constants
# Of a rollup, to which all partitions add: as of the lowest checkpoint.
_TOGETHER = f"""
{_PARTITIONS}, together as (
    select (array_agg(p.log_id))[1] as log_id, min(p.position) as position,
           coalesce(max(p.ready_at) filter (where p.position < p.ready_at), 0) as ready_at, p.generation,
           sum(case when p.parked_revision <> '' then (
               select count(*) from read_model_parked k
               where k.projection = p.projection and k.generation = p.generation
           ) else 0 end)::bigint as parked
    from parts p group by p.generation having count(p.log_id) = count(*) and count(distinct p.log_id) = 1
)
"""  # noqa: S608 - of constants


class PostgresReader:
    """Reads one read model, whichever of its generations is live. Methods raise `ReadModelUnavailable`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], projection: str) -> None:
        self._pool = pool
        self._projection = projection

    async def document(self, document_id: str) -> ReadResult[Document]:
        rows = await self._fetch(_DOCUMENT, document_id)
        partition = partition_of(document_id, len(rows))
        log_id, position, ready_at, generation, code, *fields = rows[partition]
        document = Document(*(None if text is None else text.encode() for text in fields))
        if log_id is None:
            return ReadResult(None, document, partition)
        at = ReadPosition.of(Checkpoint(log_id, position, ready_at, generation), code)
        return ReadResult(at, document, partition)

    async def lines(
        self, rollup: str, columns: Sequence[str], where: str = "true", *arguments: object
    ) -> ReadResult[RollupLines]:
        """The lines of a rollup where the condition holds, ordered by `columns`; those of its key come first.

        The condition names the rollup's columns as `line.<name>` and the arguments as $2, $3 … Of more than
        `MAX_LINES`, one more than that.
        """
        names = ", ".join(f"line.{name}" for name in columns)
        rows = await self._fetch(
            f"{_TOGETHER}"  # noqa: S608 - names of columns and tables are our own constants
            f"select m.log_id, m.position, m.ready_at, m.generation, m.parked, line.generation is not null, {names}"
            f" from together m left join {rollup} line on line.generation = m.generation and ({where})"
            f" order by {names} limit {MAX_LINES + 1}",
            *arguments,
        )
        if not rows:
            return ReadResult(None, RollupLines([], 0))
        lines = [tuple(row[6:]) for row in rows if row[5]]
        return ReadResult(ReadPosition.of(Checkpoint(*rows[0][:4])), RollupLines(lines, rows[0]["parked"]))

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                rows: list[Any] = await self._pool.fetch(statement, self._projection, *arguments)
        except CONNECTION_LOST as error:
            raise ReadModelUnavailable("PostgreSQL") from error
        return rows
