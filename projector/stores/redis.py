"""Read models in Redis or Valkey. Every step that must not be torn apart is one Lua script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from itertools import chain
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from projector.stores import Batch, Fenced, Moved, OtherCode, Standing, Verdict
from shared.consistency import ConsistencyToken
from shared.read_model_keys import Checkpoint, Generations, PartitionKeys, read_checkpoint, read_generations

_FENCED, _OTHER_CODE = 0, 2  # what claim.lua answers
_WIPE_KEYS = 500  # removed in one step, so that other clients wait no longer than that

_pack = msgspec.msgpack.Encoder().encode


class RedisStore:
    """One partition of one read model. Methods are those of `projector.stores.Store`."""

    def __init__(self, redis: Redis, keys: PartitionKeys, code: int | None = 1, *, announce: bool = True) -> None:
        """`code` is the version of the projection's; None may claim any, to remove it."""
        self._redis = redis
        self._keys = keys
        self._code = code
        self._channel = keys.channel if announce else ""
        self._claim = _script(redis, "claim")
        self._load = _script(redis, "load")
        self._apply = _script(redis, "apply")
        self._wipe = _script(redis, "wipe")
        self._begin = _script(redis, "begin")
        self._heartbeat = _script(redis, "heartbeat")

    async def claim(self, epoch: int) -> Standing | None:
        claimed, *stored = await self._claim([self._keys.meta], [epoch, self._code or ""])
        if claimed == _FENCED:
            raise Fenced(stored[0])
        if claimed == _OTHER_CODE:
            raise OtherCode(self._keys.generation, stored[0], self._code or 0)
        checkpoint = Checkpoint.parse(stored[:-1])
        return None if checkpoint is None else Standing(checkpoint, bytes.fromhex((stored[-1] or b"").decode()))

    async def checkpoint(self) -> Checkpoint | None:
        return await read_checkpoint(self._redis, self._keys)

    async def load(self, expected: Checkpoint, document_ids: Sequence[str]) -> dict[str, bytes]:
        if not document_ids:
            return {}
        keys = [self._keys.meta, *map(self._keys.document, document_ids)]
        log_id, position, *documents = await self._load(keys)
        if log_id != expected.log_id.hex.encode() or position != b"%d" % expected.position:
            raise Moved
        found = zip(document_ids, documents, strict=True)
        return {document_id: document for document_id, document in found if document is not None}

    async def apply(self, batch: Batch, epoch: int) -> Verdict:
        changes = batch.changes
        packed = _pack(
            (
                self._keys.prefix,
                str(epoch),
                batch.expected.log_id.hex,
                str(batch.expected.position),
                str(batch.position),
                batch.hash.hex(),
                self._channel,
                ConsistencyToken(batch.expected.log_id, batch.position).encode(),
                list(changes.removed.items()),
                [(index, [part for place in places for part in (0, place)]) for index, places in changes.added.items()],
                [
                    (self._keys.document(document_id).removeprefix(self._keys.prefix), [*chain(*fields.items())])
                    for document_id, fields in changes.documents.items()
                ],
            )
        )
        return Verdict((await self._apply([self._keys.meta], [packed])).decode())

    async def reset(self, epoch: int, log_id: UUID, serve_from: int) -> Checkpoint:
        await self.wipe(epoch)
        generation, code = self._keys.generation, self._code or ""
        if not await self._begin([self._keys.meta], [epoch, log_id.hex, serve_from, generation, code]):
            raise Moved
        return Checkpoint(log_id, 0, serve_from, self._keys.generation)

    async def wipe(self, epoch: int) -> None:
        """Removes everything but who claimed it last. Raises `Moved` when that is not this epoch."""
        keep = {self._keys.meta.encode(), self._keys.heartbeat.encode()}
        await self._wipe_keys(epoch, [])
        chunk: list[bytes] = []
        async for key in self._redis.scan_iter(match=_glob_literal(self._keys.prefix) + "*", count=_WIPE_KEYS):
            if key not in keep:
                chunk.append(key)
            if len(chunk) == _WIPE_KEYS:
                await self._wipe_keys(epoch, chunk)
                chunk = []
        await self._wipe_keys(epoch, chunk)

    async def _wipe_keys(self, epoch: int, keys: list[bytes]) -> None:
        if not await self._wipe([self._keys.meta, *keys], [epoch]):
            raise Moved

    async def heartbeat(self, epoch: int, worker: str, state: str) -> None:
        await self._heartbeat([self._keys.heartbeat], [epoch, worker, state])


class RedisShelf:
    """The generations of one read model. Methods are those of `projector.stores.Shelf`."""

    def __init__(self, redis: Redis, projection: str, code: int) -> None:
        self._redis = redis
        self._keys = PartitionKeys(projection)
        self._code = code
        self._stores: dict[tuple[int, bool], RedisStore] = {}
        self._add = _script(redis, "add")
        self._switch = _script(redis, "switch")
        self._retire = _script(redis, "retire")

    async def reconnect(self) -> None:
        """Nothing to do: the client drops a connection that timed out."""

    async def generations(self) -> Generations:
        return await read_generations(self._redis, self._keys)

    def store(self, generation: int, *, announce: bool = True) -> RedisStore:
        if (store := self._stores.get((generation, announce))) is None:
            store = RedisStore(self._redis, self._keys.of(generation), self._code, announce=announce)
            self._stores[generation, announce] = store
        return store

    async def add(self) -> int:
        return int(await self._add([self._keys.generations], []))

    async def switch(self, live: int, other: int) -> bool:
        keys = [self._keys.generations, self._keys.of(live).meta, self._keys.of(other).meta]
        return bool(await self._switch(keys, [live, other, self._keys.channel]))

    async def drop(self, generation: int) -> bool:
        if not await self._retire([self._keys.generations], [generation]):
            return False
        keys = self._keys.of(generation)
        epoch = int(await self._redis.hget(keys.meta, "epoch") or 0)
        store = RedisStore(self._redis, keys, None)
        try:
            await store.claim(epoch)
            await store.wipe(epoch)
        except (Fenced, Moved):
            return False
        await self._redis.delete(keys.meta)
        await self._redis.hdel(self._keys.generations, "dropping")
        return True


def _script(redis: Redis, name: str) -> AsyncScript:
    # Called by its hash; redis-py loads it again when the server has forgotten it.
    return redis.register_script((files("projector.stores") / f"{name}.lua").read_text("utf-8"))


def _glob_literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
