"""Reads a partition of a read model in PostgreSQL for its verification."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import asyncpg

from projector.projection import Rollup
from projector.stores.inspection import IndexMember, Inspected, RollupLines
from shared.read_models import poison as poisons
from shared.read_models.keys import row_name

# One statement sees one state of the read model.
_READ = """
select 'position' as kind, null as id, position::text as value from read_models
where projection = $1 and generation = $2
union all
select 'document', document_id, document::text from read_model_documents
where projection = $1 and generation = $2 and document_id = any($3)
union all
select 'parked', document_id, poison::text from read_model_parked
where projection = $1 and generation = $2 and document_id = any($3)
"""
_IDS = """
select document_id from read_model_documents
where projection = $1 and generation = $2 and document_id > $3 order by document_id limit $4
"""


class PostgresInspection:
    """Methods are those of `projector.stores.inspection.Inspection`."""

    fields = ("document",)

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        projection: str,
        rollups: Sequence[Rollup],
        generation: int,
        partition: int,
        partitions: int,
    ) -> None:
        self._pool = pool
        self._rollups = {one.name: one for one in rollups}
        self._key = (row_name(projection, partition), generation)
        self._names = [row_name(projection, each) for each in range(partitions)]

    async def read(self, document_ids: Sequence[str], members: Sequence[IndexMember]) -> Inspected:
        assert not members, "PostgreSQL keeps no index of documents"
        inspected = Inspected(0, {}, {}, set())
        for kind, document_id, value in await self._pool.fetch(_READ, *self._key, document_ids):
            if kind == "position":
                inspected = inspected._replace(position=int(value or 0))
            elif kind == "document":
                inspected.documents[document_id] = {"document": value}
            else:
                inspected.parked[document_id] = poisons.decode(value)
        return inspected

    async def document_ids(self, page: int) -> AsyncIterator[list[str]]:
        last = ""
        while rows := await self._pool.fetch(_IDS, *self._key, last, page):
            last = rows[-1]["document_id"]
            yield [row["document_id"] for row in rows]

    async def members(self, page: int) -> AsyncIterator[list[IndexMember]]:
        del page
        yield []

    async def lines(self, rollup: str) -> RollupLines:
        positions, lines = await self._fetch_lines(rollup)
        found = dict(json.loads(positions or "[]"))
        fields = self._rollups[rollup]
        return RollupLines(
            [found.get(name) or 0 for name in self._names],
            {
                tuple(line[name] for name in fields.key): tuple(int(line[name]) for name in fields.amounts)
                for line in json.loads(lines or "[]")
            },
        )

    async def _fetch_lines(self, rollup: str) -> asyncpg.Record:
        # The name of a table, which is our own constant.
        row = await self._pool.fetchrow(
            "select (select json_agg(json_build_array(projection, position)) from read_models"  # noqa: S608
            "        where projection = any($1) and generation = $2),"
            f" (select json_agg(line) from {self._rollups[rollup].name} line where generation = $2)",
            self._names,
            self._key[1],
        )
        assert row is not None
        return row
