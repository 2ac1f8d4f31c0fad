"""Read models in PostgreSQL. A batch is one transaction, which begins by locking the read model's row."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from projector.projection import Rollup
from projector.stores.postgres_parking import PostgresParking
from projector.stores.rollups import RESET_SECONDS, RollupTable
from projector.stores.store import ApplyResult, Batch, CheckpointMismatch, ClaimedCheckpoint, Fenced, VersionMismatch
from shared.failpoints import failpoint
from shared.postgres import unbound
from shared.read_models import poison as poisons
from shared.read_models.keys import Checkpoint, row_name
from shared.read_models.poison import Poison

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Lines: TypeAlias = dict[str, list[dict[str, Any]]]  # by the name of the rollup

_CLAIM = """
insert into read_models as kept (projection, generation, epoch) values ($1, $2, $3)
on conflict (projection, generation) do update set epoch = excluded.epoch
where kept.epoch <= excluded.epoch and (kept.log_id is null or kept.code = $4)
returning log_id, position, ready_at, generation, parked_revision, hash
"""
_READ_CLAIM = "select epoch, code from read_models where projection = $1 and generation = $2"
_READ = """
select log_id, position, ready_at, generation, parked_revision from read_models
where projection = $1 and generation = $2
"""
_LOAD = """
select m.log_id, m.position, m.parked_revision, d.document_id, d.document
from read_models m
left join lateral read_model_documents_of(m.projection, m.generation, $3, $4) d on true
where m.projection = $1 and m.generation = $2
"""
# All of a batch in one statement: one round trip and, where nothing follows, one transaction. `moved` locks the read
# model's row. It is empty where the batch does not go on from there, and then so is all that is joined with it.
_APPLY = """
with moved as (
    update read_models set epoch = $3, position = $4, hash = $5, parked_revision = $6
    where projection = $1 and generation = $2 and epoch <= $3 and log_id = $7 and position = $8 and parked_revision = $9
    returning true
),
documents as (
    insert into read_model_documents (projection, generation, document_id, document)
    select $1, $2, id, document::json from moved, unnest($10::text[], $11::text[]) as changed (id, document)
    on conflict (projection, generation, document_id) do update set document = excluded.document
),
new_documents as (
    insert into read_model_documents (projection, generation, document_id, document)
    select $1, $2, id, document::json from moved, unnest($12::text[], $13::text[]) as new (id, document)
)
"""
_APPLY_PARAMETERS = 13  # and one for each rollup
# Locks all rows, in one order: projectors that locked only existing rows would lock them in different orders.
_ENSURE_ALL = """
insert into read_models (projection, generation, epoch) select name, $2, 0 from unnest($1::text[]) name order by name
on conflict do nothing
"""
_LOCK_ALL = """
select projection, epoch, log_id, position, ready_at from read_models
where projection = any($1) and generation = $2 order by projection for update
"""
_REMOVE_DOCUMENTS = "delete from read_model_documents where projection = any($1) and generation = $2"
_BEGIN = """
insert into read_models (projection, generation, epoch, log_id, position, ready_at, code, hash)
select name, $2, 0, $3, 0, $4, $5, '' from unnest($1::text[]) name
on conflict (projection, generation) do update
set log_id = excluded.log_id, position = 0, ready_at = excluded.ready_at, code = excluded.code, hash = '',
    parked_revision = '', retries = '{}'
"""
_HEARTBEAT = """
insert into read_model_heartbeats as kept (projection, epoch, worker, state, reason, poison, beat_at)
values ($1, $2, $3, $4, $5, $6::text::json, clock_timestamp())
on conflict (projection) do update
set epoch = excluded.epoch, worker = excluded.worker, state = excluded.state,
    reason = excluded.reason, poison = excluded.poison, beat_at = excluded.beat_at
where kept.epoch <= excluded.epoch
"""
_HEARTBEAT_AGE = """
with reported as (
    update read_model_heartbeats set worker = $2, state = $3, reason = $4, poison = null
    where projection = $1 and $4 <> '' and beat_at < clock_timestamp() - make_interval(secs => $5)
      and (worker, state, reason) <> ($2, $3, $4)
)
select extract(epoch from clock_timestamp() - beat_at)::float8 from read_model_heartbeats
where projection = $1 and beat_at <= clock_timestamp()
"""


class PostgresStore:
    """One partition of a generation. Methods are those of `projector.stores.store.Store`. Each rollup is a table of its
    name.

    All partitions of a generation add to the same lines of rollups. Contributions cannot be told apart afterwards, so
    all partitions are reset together.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        projection: str,
        rollups: Sequence[Rollup],
        code: int = 1,
        generation: int = 1,
        partition: int = 0,
        partitions: int = 1,
    ) -> None:
        self._pool = pool
        self._projection = projection
        self._name = row_name(projection, partition)
        self._names = [row_name(projection, each) for each in range(partitions)]
        self._generation = generation
        self._code = code
        self._key = (self._name, generation)
        self._rollups = {one.name: RollupTable(one, generation) for one in rollups}
        self._parking = PostgresParking(pool, self._name, generation)
        self._statement = _statement([*self._rollups.values()])

    async def claim(self, epoch: int) -> ClaimedCheckpoint | None:
        row = await self._pool.fetchrow(_CLAIM, *self._key, epoch, self._code)
        if row is None:
            found = await self._pool.fetchrow(_READ_CLAIM, *self._key)
            if found is None:
                raise CheckpointMismatch  # it was dropped just now
            if found["epoch"] > epoch:
                raise Fenced(found["epoch"])
            raise VersionMismatch(self._generation, found["code"], self._code)
        checkpoint = checkpoint_of(row)
        return None if checkpoint is None else ClaimedCheckpoint(checkpoint, row["hash"])

    async def checkpoint(self) -> Checkpoint | None:
        return checkpoint_of(await self._pool.fetchrow(_READ, *self._key))

    async def load(self, expected: Checkpoint, document_ids: Sequence[str], max_bytes: int) -> dict[str, bytes | None]:
        if not document_ids:
            return {}
        rows = await self._pool.fetch(_LOAD, *self._key, document_ids, max_bytes)
        if not rows or not _is_at(rows[0], expected):
            raise CheckpointMismatch
        return {row["document_id"]: None if row["document"] is None else row["document"].encode() for row in rows}

    async def apply(self, batch: Batch, epoch: int) -> ApplyResult:
        changes = batch.changes
        lines = {
            name: self._rollups[name].lines(changes.removed.get(name, ()), changes.added.get(name, ()))
            for name in changes.removed.keys() | changes.added.keys()
        }
        shrinking = {name: self._rollups[name].shrinking(some) for name, some in lines.items()}
        async with self._pool.acquire() as connection:
            try:
                if batch.parked_revision or any(shrinking.values()):
                    async with connection.transaction():
                        applied = await self._write(connection, batch, epoch, lines)
                        failpoint("projection.written", self._projection)
                        if applied:
                            await self._finish(connection, batch, shrinking)
                        failpoint("projection.finished", self._projection)
                else:
                    applied = await self._write(connection, batch, epoch, lines)
            except asyncpg.UniqueViolationError:
                return ApplyResult.EXISTS
            return ApplyResult.APPLIED if applied else await self._why_not(connection, epoch)

    async def _write(self, connection: Connection, batch: Batch, epoch: int, lines: Lines) -> bool:
        """False, and nothing is written, where the read model is not where the batch goes on from."""
        start, documents = batch.expected, batch.changes.documents
        changed = documents.keys() - batch.new
        applied: bool | None = await connection.fetchval(
            self._statement,
            *(*self._key, epoch, batch.position, batch.hash, batch.reached.parked_revision),
            *(start.log_id, start.position, start.parked_revision),
            *([*changed], [documents[document_id]["document"] for document_id in changed]),
            *([*batch.new], [documents[document_id]["document"] for document_id in batch.new]),
            *(json.dumps(lines.get(name, [])) for name in self._rollups),
        )
        return bool(applied)

    async def _finish(self, connection: Connection, batch: Batch, shrinking: Lines) -> None:
        """What needs statements of its own."""
        for name, lines in shrinking.items():
            if lines:
                await self._rollups[name].remove_empty(connection, lines)
        await self._parking.write(connection, batch)

    async def _why_not(self, connection: Connection, epoch: int) -> ApplyResult:
        stored = await connection.fetchrow(_READ_CLAIM, *self._key)
        return ApplyResult.FENCED if stored is not None and stored["epoch"] > epoch else ApplyResult.MISMATCH

    async def reset(self, epoch: int, log_id: UUID, ready_at: int) -> Checkpoint:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_ENSURE_ALL, self._names, self._generation)
            rows = await connection.fetch(_LOCK_ALL, self._names, self._generation)
            stored = next((row for row in rows if row["projection"] == self._name), None)
            if stored is None or stored["epoch"] != epoch:
                raise CheckpointMismatch
            if (stored["log_id"], stored["position"]) == (log_id, 0):  # another partition has begun it for all
                return Checkpoint(log_id, 0, stored["ready_at"], self._generation)
            await self.clear(connection)
            failpoint("projection.wiping", self._projection)
            await connection.execute(_BEGIN, self._names, self._generation, log_id, ready_at, self._code)
        return Checkpoint(log_id, 0, ready_at, self._generation)

    async def clear(self, connection: Connection) -> None:
        """Removes all that the generation holds, in the caller's transaction, which may take long."""
        await unbound(connection)  # each statement keeps a time-out of its own
        await connection.execute(_REMOVE_DOCUMENTS, self._names, self._generation, timeout=RESET_SECONDS)
        await self._parking.clear(connection, self._names)
        for table in self._rollups.values():
            await table.clear(connection)

    async def heartbeat(
        self, epoch: int, worker: str, state: str, reason: str = "", poison: Poison | None = None
    ) -> None:
        what = None if poison is None else poisons.encode(poison).decode()
        await self._pool.execute(_HEARTBEAT, self._name, epoch, worker, state, reason, what)

    async def heartbeat_age(self, worker: str, state: str, excuse: str, most_seconds: float) -> float | None:
        seconds: float | None = await self._pool.fetchval(
            _HEARTBEAT_AGE, self._name, worker, state, excuse, most_seconds
        )
        return seconds

    async def parked(self, expected: Checkpoint) -> list[Poison]:
        return await self._parking.parked(expected)

    async def count_parked(self) -> int:
        return await self._parking.count_parked()

    async def ask_retry(self, document_id: str) -> None:
        await self._parking.ask_retry(document_id)

    async def retries(self) -> frozenset[str]:
        return await self._parking.retries()

    async def retried(self, asked: Collection[str]) -> None:
        await self._parking.retried(asked)


def _statement(tables: Sequence[RollupTable]) -> str:
    adding = [
        f", rollup_{nr} as ({table.add(_APPLY_PARAMETERS + nr, condition='moved')})"
        for nr, table in enumerate(tables, start=1)
    ]
    return f"{_APPLY}{''.join(adding)} select true from moved"  # noqa: S608 - of constants


def _is_at(row: asyncpg.Record, expected: Checkpoint) -> bool:
    return (row["log_id"], row["position"], row["parked_revision"]) == (
        expected.log_id,
        expected.position,
        expected.parked_revision,
    )


def checkpoint_of(row: asyncpg.Record | None) -> Checkpoint | None:
    if row is None or row["log_id"] is None:
        return None
    return Checkpoint(row["log_id"], row["position"], row["ready_at"], row["generation"], row["parked_revision"])
