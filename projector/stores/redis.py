"""Read models in Redis or Valkey. Every step that must not be torn apart is one Lua script."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from projector.stores.pieces import changed_fields
from projector.stores.store import ApplyResult, Batch, CheckpointMismatch, ClaimedCheckpoint, Fenced, VersionMismatch
from shared.failpoints import failpoint
from shared.read_models import poison as poisons
from shared.read_models.checkpoints import read_checkpoint
from shared.read_models.keys import (
    Checkpoint,
    PartitionKeys,
    glob_literal,
)
from shared.read_models.poison import Poison

_FENCED, _OTHER_CODE = 0, 2  # what claim.lua answers
_WIPE_KEYS = 500  # removed in one step, so that other clients wait no longer than that

_pack = msgspec.msgpack.Encoder().encode


class RedisStore:
    """One partition of one read model. Methods are those of `projector.stores.store.Store`."""

    def __init__(
        self, redis: Redis, keys: PartitionKeys, code: int | None = 1, partitions: int = 1, *, announce: bool = True
    ) -> None:
        """One of so many partitions. `code` is the version of the projection's; None may claim any, to remove it."""
        self._redis = redis
        self._keys = keys
        self._code = code
        self._partitions = partitions
        self._channel = keys.channel if announce else ""
        self._document = keys.documents.removeprefix(keys.prefix)
        self._claim = load_script(redis, "claim")
        self._load = load_script(redis, "load")
        self._apply = load_script(redis, "apply")
        self._wipe = load_script(redis, "wipe")
        self._reset = load_script(redis, "reset")
        self._heartbeat = load_script(redis, "heartbeat")
        self._heartbeat_age = load_script(redis, "heartbeat_age")
        self._parked = load_script(redis, "parked")

    async def claim(self, epoch: int) -> ClaimedCheckpoint | None:
        claimed, *stored = await self._claim([self._keys.meta], [epoch, self._code or "", self._partitions])
        if claimed == _FENCED:
            raise Fenced(stored[0])
        if claimed == _OTHER_CODE:
            raise VersionMismatch(self._keys.generation, stored[0], self._code or 0)
        checkpoint = Checkpoint.parse(stored[:-1])
        return (
            None if checkpoint is None else ClaimedCheckpoint(checkpoint, bytes.fromhex((stored[-1] or b"").decode()))
        )

    async def checkpoint(self) -> Checkpoint | None:
        return await read_checkpoint(self._redis, self._keys)

    async def load(self, expected: Checkpoint, document_ids: Sequence[str], max_bytes: int) -> dict[str, bytes | None]:
        if not document_ids:
            return {}
        keys = [self._keys.meta, *map(self._keys.document, document_ids)]
        documents = _as_of(expected, await self._load(keys, [max_bytes]))
        return dict(zip(document_ids, documents, strict=False))

    async def apply(self, batch: Batch, epoch: int) -> ApplyResult:
        return ApplyResult((await self._apply([self._keys.meta], [self._packed(batch, epoch)])).decode())

    def _packed(self, batch: Batch, epoch: int) -> bytes:
        changes = batch.changes
        return _pack(
            (
                self._keys.prefix,
                str(epoch),
                batch.expected.log_id.hex,
                str(batch.expected.position),
                str(batch.position),
                batch.hash.hex(),
                self._channel,
                _runs(changes.removed.items()),
                _runs((index, [*chain(*zip(repeat("0"), places))]) for index, places in changes.added.items()),
                self._runs_of_documents(changes.documents, changes.replaced),
                [self._document + document_id for document_id in batch.new],
                batch.expected.parked_revision,
                batch.reached.parked_revision,
                [
                    (self._field_of(document_id), document_id, str(poison.position), poisons.encode(poison).decode())
                    for document_id, poison in batch.parked.items()
                ],
                [(self._field_of(document_id), document_id) for document_id in batch.unparked],
            )
        )

    def _runs_of_documents(self, documents: Mapping[str, Mapping[str, str]], replaced: Mapping[str, str]) -> list[Any]:
        flat: list[Any] = []
        for document_id, fields in documents.items():
            written = changed_fields(fields, replaced.get(document_id))
            flat += (self._document + document_id, 2 * len(written))
            for field in written.items():
                flat += field
        return flat

    def _field_of(self, document_id: str) -> str:
        """The document's key without the prefix."""
        return self._document + document_id

    async def reset(self, epoch: int, log_id: UUID, ready_at: int) -> Checkpoint:
        await self.wipe(epoch)
        values = [self._keys.generation, self._code or "", self._partitions]
        if not await self._reset([self._keys.meta], [epoch, log_id.hex, ready_at, *values]):
            raise CheckpointMismatch
        return Checkpoint(log_id, 0, ready_at, self._keys.generation)

    async def wipe(self, epoch: int) -> None:
        """Removes all but which epoch claimed it last. Raises `CheckpointMismatch` when that is not this epoch."""
        keep = {self._keys.meta.encode(), self._keys.heartbeat.encode()}
        await self._wipe_keys(epoch, [])
        chunk: list[bytes] = []
        async for key in self._redis.scan_iter(match=glob_literal(self._keys.prefix) + "*", count=_WIPE_KEYS):
            if key not in keep:
                chunk.append(key)
            if len(chunk) == _WIPE_KEYS:
                await self._wipe_keys(epoch, chunk)
                chunk = []
        await self._wipe_keys(epoch, chunk)

    async def _wipe_keys(self, epoch: int, keys: list[bytes]) -> None:
        if not await self._wipe([self._keys.meta, *keys], [epoch]):
            raise CheckpointMismatch
        failpoint("projection.wiping", self._keys.projection)

    async def heartbeat(
        self, epoch: int, worker: str, state: str, reason: str = "", poison: Poison | None = None
    ) -> None:
        what = b"" if poison is None else poisons.encode(poison)
        await self._heartbeat([self._keys.heartbeat], [epoch, worker, state, reason, what])

    async def heartbeat_age(self, worker: str, state: str, excuse: str, most_seconds: float) -> float | None:
        found = await self._heartbeat_age([self._keys.heartbeat], [worker, state, excuse, round(most_seconds * 1_000)])
        return None if found is None or found < 0 else found / 1_000

    async def parked(self, expected: Checkpoint) -> list[Poison]:
        found = await self._parked([self._keys.meta, self._keys.parked], [self._keys.documents])
        return [poisons.decode(record) for record in _as_of(expected, found) if record is not None]

    async def count_parked(self) -> int:
        return int(await self._redis.zcard(self._keys.parked))

    async def ask_retry(self, document_id: str) -> None:
        await self._redis.sadd(self._keys.retry, document_id)

    async def retries(self) -> frozenset[str]:
        asked: set[Any] = await self._redis.smembers(self._keys.retry)
        return frozenset(document_id.decode() for document_id in asked)

    async def retried(self, asked: Collection[str]) -> None:
        await self._redis.srem(self._keys.retry, *asked)


def _runs(runs: Iterable[tuple[str, Sequence[Any]]]) -> list[Any]:
    """Keys and their arguments, flat: see `apply.lua`."""
    flat: list[Any] = []
    for key, arguments in runs:
        flat += (key, len(arguments), *arguments)
    return flat


def load_script(redis: Redis, name: str) -> AsyncScript:
    # Called by its hash; redis-py loads it again when the server does not have it.
    return redis.register_script((files("projector.stores") / f"{name}.lua").read_text("utf-8"))


def _as_of(expected: Checkpoint, found: list[bytes | None]) -> list[bytes | None]:
    """What was found, without the checkpoint that it came with. Raises `CheckpointMismatch` for another one."""
    log_id, position, parked_revision, *values = found
    if (log_id, position) != (expected.log_id.hex.encode(), b"%d" % expected.position):
        raise CheckpointMismatch
    if (parked_revision or b"") != expected.parked_revision.encode():
        raise CheckpointMismatch
    return values
