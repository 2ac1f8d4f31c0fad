"""The generations of a read model in Redis or Valkey. Every step that must not be torn apart is one Lua script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis

from projector.stores.generation_store import is_no_older
from projector.stores.redis import RedisStore, load_script
from projector.stores.redis_inspection import RedisInspection
from projector.stores.store import CheckpointMismatch, Fenced
from shared.read_models.checkpoints import read_checkpoint, read_generations
from shared.read_models.keys import PARTITIONS_FIELD, Checkpoint, Generations, PartitionKeys


class RedisGenerationStore:
    """The generations of one read model. Methods are those of `projector.stores.generation_store.GenerationStore`."""

    def __init__(self, redis: Redis, projection: str, code: int) -> None:
        self._redis = redis
        self._keys = PartitionKeys(projection)
        self._code = code
        self._stores: dict[tuple[int, int, int, bool], RedisStore] = {}
        self._initialise = load_script(redis, "initialise")
        self._begin = load_script(redis, "begin_generation")
        self._switch = load_script(redis, "switch")
        self._retire = load_script(redis, "retire")

    async def reconnect(self) -> None:
        """Nothing to do: the client drops a connection that timed out."""

    async def generations(self) -> Generations:
        return await read_generations(self._redis, self._keys)

    async def initialise(self, partitions: int) -> Generations:
        field = f"{PARTITIONS_FIELD}{self._keys.generation}"
        await self._initialise([self._keys.generations, self._keys.meta], [field, partitions])
        return await self.generations()

    def store(self, generation: int, partition: int = 0, partitions: int = 1, *, announce: bool = True) -> RedisStore:
        key = generation, partition, partitions, announce
        if (store := self._stores.get(key)) is None:
            keys = PartitionKeys(self._keys.projection, partition, generation)
            store = RedisStore(self._redis, keys, self._code, partitions, announce=announce)
            self._stores[key] = store
        return store

    def inspection(self, generation: int, partition: int = 0, partitions: int = 1) -> RedisInspection:
        del partitions
        return RedisInspection(self._redis, PartitionKeys(self._keys.projection, partition, generation))

    async def begin(self, partitions: int) -> int:
        return int(await self._begin([self._keys.generations], [PARTITIONS_FIELD, partitions]))

    async def checkpoints(self, generation: int) -> list[Checkpoint | None]:
        every = self._keys.of(generation).each((await self.generations()).partitions_of(generation))
        return await asyncio.gather(*(read_checkpoint(self._redis, keys) for keys in every))

    async def switch(self, live: int, other: int, seen: Sequence[Checkpoint | None] = ()) -> bool:
        generations = await self.generations()
        divided = generations.partitions_of(live) > 1 or generations.partitions_of(other) > 1
        # Partitions are on different nodes, so they are compared before the switch, not with it.
        if divided and not is_no_older(await self.checkpoints(other), seen or await self.checkpoints(live)):
            return False
        keys = [self._keys.generations, self._keys.of(live).meta, self._keys.of(other).meta]
        return bool(await self._switch(keys, [live, other, self._keys.channel, "yes" if divided else "no"]))

    async def drop(self, generation: int) -> bool:
        partitions = (await self.generations()).partitions_of(generation)
        if not await self._retire([self._keys.generations], [generation]):
            return False
        for keys in self._keys.of(generation).each(partitions):
            if not await self._remove(keys):
                return False
        await self._redis.hdel(self._keys.generations, "dropping", f"{PARTITIONS_FIELD}{generation}")
        return True

    async def _remove(self, keys: PartitionKeys) -> bool:
        epoch = int(await self._redis.hget(keys.meta, "epoch") or 0)
        store = RedisStore(self._redis, keys, None)
        try:
            await store.claim(epoch)
            await store.wipe(epoch)
        except (Fenced, CheckpointMismatch):
            return False
        await self._redis.delete(keys.meta)
        return True
