"""Read models in PostgreSQL. A batch is one transaction, which begins by locking the read model's row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.folding import Changes
from projector.projection import Sums
from projector.stores import Batch, Fenced, Moved, OtherCode, Standing, Verdict
from projector.stores.sums import RESET_SECONDS, SumsTable
from shared.read_model_keys import Checkpoint

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


_CLAIM = """
insert into read_models as kept (projection, generation, epoch) values ($1, $2, $3)
on conflict (projection, generation) do update set epoch = excluded.epoch
where kept.epoch <= excluded.epoch and (kept.log_id is null or kept.code = $4)
returning log_id, position, serve_from, generation, hash
"""
_READ_CLAIM = "select epoch, code from read_models where projection = $1 and generation = $2"
_READ = "select log_id, position, serve_from, generation from read_models where projection = $1 and generation = $2"
_LOCK = "select epoch, log_id, position from read_models where projection = $1 and generation = $2 for update"
_LOAD = """
select m.log_id, m.position, d.document_id, d.document
from read_models m
left join read_model_documents d
    on d.projection = m.projection and d.generation = m.generation and d.document_id = any($3)
where m.projection = $1 and m.generation = $2
"""
_WRITE_DOCUMENTS = """
insert into read_model_documents (projection, generation, document_id, document)
select $1, $2, id, document::json from unnest($3::text[], $4::text[]) as new (id, document)
on conflict (projection, generation, document_id) do update set document = excluded.document
"""
_MOVE = "update read_models set epoch = $3, position = $4, hash = $5 where projection = $1 and generation = $2"
_REMOVE_DOCUMENTS = "delete from read_model_documents where projection = $1 and generation = $2"
_BEGIN = """
update read_models set log_id = $3, position = 0, serve_from = $4, code = $5, hash = ''
where projection = $1 and generation = $2
"""
_HEARTBEAT = """
insert into read_model_heartbeats as kept (projection, epoch, worker, state, beat_at)
values ($1, $2, $3, $4, clock_timestamp())
on conflict (projection) do update
set epoch = excluded.epoch, worker = excluded.worker, state = excluded.state, beat_at = excluded.beat_at
where kept.epoch <= excluded.epoch
"""


class PostgresStore:
    """One generation. Methods are those of `projector.stores.Store`. `sums` are tables of those names."""

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        projection: str,
        sums: Sequence[Sums],
        code: int = 1,
        generation: int = 1,
    ) -> None:
        self._pool = pool
        self._projection = projection
        self._generation = generation
        self._code = code
        self._key = (projection, generation)
        self._sums = {one.name: SumsTable(one, generation) for one in sums}

    async def claim(self, epoch: int) -> Standing | None:
        row = await self._pool.fetchrow(_CLAIM, *self._key, epoch, self._code)
        if row is None:
            found = await self._pool.fetchrow(_READ_CLAIM, *self._key)
            if found is None:
                raise Moved  # it was dropped just now
            if found["epoch"] > epoch:
                raise Fenced(found["epoch"])
            raise OtherCode(self._generation, found["code"], self._code)
        checkpoint = _checkpoint(row)
        return None if checkpoint is None else Standing(checkpoint, row["hash"])

    async def checkpoint(self) -> Checkpoint | None:
        return _checkpoint(await self._pool.fetchrow(_READ, *self._key))

    async def load(self, expected: Checkpoint, document_ids: Sequence[str]) -> dict[str, bytes]:
        if not document_ids:
            return {}
        rows = await self._pool.fetch(_LOAD, *self._key, document_ids)
        if not rows or (rows[0]["log_id"], rows[0]["position"]) != (expected.log_id, expected.position):
            raise Moved
        return {row["document_id"]: row["document"].encode() for row in rows if row["document"] is not None}

    async def apply(self, batch: Batch, epoch: int) -> Verdict:
        async with self._pool.acquire() as connection, connection.transaction():
            stored = await connection.fetchrow(_LOCK, *self._key)
            if stored is not None and stored["epoch"] > epoch:
                return Verdict.FENCED
            expected = (batch.expected.log_id, batch.expected.position)
            if stored is None or (stored["log_id"], stored["position"]) != expected:
                return Verdict.MOVED
            await self._write(connection, batch.changes)
            await connection.execute(_MOVE, *self._key, epoch, batch.position, batch.hash)
        return Verdict.APPLIED

    async def _write(self, connection: Connection, changes: Changes) -> None:
        if changes.documents:
            documents = [fields["document"] for fields in changes.documents.values()]
            await connection.execute(_WRITE_DOCUMENTS, *self._key, [*changes.documents], documents)
        for name in changes.removed.keys() | changes.added.keys():
            await self._sums[name].add(connection, changes.removed.get(name, ()), changes.added.get(name, ()))

    async def reset(self, epoch: int, log_id: UUID, serve_from: int) -> Checkpoint:
        async with self._pool.acquire() as connection, connection.transaction():
            stored = await connection.fetchrow(_LOCK, *self._key)
            if stored is None or stored["epoch"] != epoch:
                raise Moved
            await self.clear(connection)
            await connection.execute(_BEGIN, *self._key, log_id, serve_from, self._code)
        return Checkpoint(log_id, 0, serve_from, self._generation)

    async def clear(self, connection: Connection) -> None:
        """Removes all that it holds, in the caller's transaction."""
        await connection.execute(_REMOVE_DOCUMENTS, *self._key, timeout=RESET_SECONDS)
        for table in self._sums.values():
            await table.clear(connection)

    async def heartbeat(self, epoch: int, worker: str, state: str) -> None:
        await self._pool.execute(_HEARTBEAT, self._projection, epoch, worker, state)


def _checkpoint(row: asyncpg.Record | None) -> Checkpoint | None:
    if row is None or row["log_id"] is None:
        return None
    return Checkpoint(row["log_id"], row["position"], row["serve_from"], row["generation"])
