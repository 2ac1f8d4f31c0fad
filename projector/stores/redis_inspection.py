"""Reads a partition of a read model in Redis or Valkey for its verification."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files

from redis.asyncio import Redis

from projector.stores.inspection import IndexMember, Inspected, RollupLines
from projector.stores.pieces import joined
from shared.read_models import poison as poisons
from shared.read_models.keys import PartitionKeys, glob_literal

_NO_INDEX = ("meta", "heartbeat", "parked", "retry")


class RedisInspection:
    """Methods are those of `projector.stores.inspection.Inspection`."""

    fields = ("document", "version", "summary")

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._inspect = redis.register_script((files("projector.stores") / "inspect.lua").read_text("utf-8"))

    async def read(self, document_ids: Sequence[str], members: Sequence[IndexMember]) -> Inspected:
        by_index: defaultdict[str, list[str]] = defaultdict(list)
        for index, member in members:
            by_index[index].append(member)
        keys = [self._keys.meta, *map(self._keys.document, document_ids), *map(self._keys.index, by_index)]
        arguments: list[int | str] = [len(document_ids)]
        for some in by_index.values():
            arguments += [len(some), *some]
        position, *found = await self._inspect(keys, arguments)
        inspected = Inspected(int(position or 0), {}, {}, set())
        for document_id, flat in zip(document_ids, found, strict=False):
            values = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            if (record := values.pop("parked", None)) is not None:
                inspected.parked[document_id] = poisons.decode(record)
            if values:
                inspected.documents[document_id] = joined({name: value.decode() for name, value in values.items()})
        for (index, some), scores in zip(by_index.items(), found[len(document_ids) :], strict=True):
            inspected.members.update(
                (index, member) for member, score in zip(some, scores, strict=True) if score is not None
            )
        return inspected

    async def document_ids(self, page: int) -> AsyncIterator[list[str]]:
        some: list[str] = []
        async for key in self._redis.scan_iter(match=glob_literal(self._keys.documents) + "*", count=page):
            some.append(key.decode().removeprefix(self._keys.documents))
            if len(some) >= page:
                yield some
                some = []
        yield some

    async def members(self, page: int) -> AsyncIterator[list[IndexMember]]:
        some: list[IndexMember] = []
        async for key in self._redis.scan_iter(match=glob_literal(self._keys.prefix) + "*", count=page):
            index = key.decode().removeprefix(self._keys.prefix)
            if key.decode().startswith(self._keys.documents) or index in _NO_INDEX:
                continue
            async for member, _ in self._redis.zscan_iter(key, count=page):
                some.append((index, member.decode()))
                if len(some) >= page:
                    yield some
                    some = []
        yield some

    async def lines(self, rollup: str) -> RollupLines:
        raise NotImplementedError(f"Redis keeps no rollup {rollup}")
