"""Where the read models live in Redis: every key, field and member, for the projector that writes and the query
service that reads.

All keys of one partition of a projection share a hash tag, so they live on one node of a Redis Cluster and one script
may touch them all:

    {orders.0}:meta         hash         the checkpoint and who wrote it, see `Checkpoint`
    {orders.0}:heartbeat    hash         the worker's last sign of life
    {orders.0}:doc:<id>     hash         document (JSON, ready to serve), summary (JSON for lists), version
    {orders.0}:<index>      sorted set   the documents of an index, as places, see `place_of`
    {orders.0}:checkpoints  channel      each new checkpoint, as an encoded consistency token
    {orders.0}.generations  hash         which generations there are, see `Generations`

These are the names of generation 1. A later one, 2 say, has keys of its own, `{orders.0}.2:meta` and so on; heartbeat
and channel are shared by all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from shared.consistency import ConsistencyToken


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class PartitionKeys:
    """The keys of one generation of one partition of a projection."""

    def __init__(self, projection: str, partition: int = 0, generation: int = 1) -> None:
        tag = f"{{{projection}.{partition}}}"
        self.projection = projection
        self.partition = partition
        self.generation = generation
        self.prefix = f"{tag}:" if generation == 1 else f"{tag}.{generation}:"
        self.meta = self.prefix + "meta"
        self.documents = self.prefix + "doc:"
        self.heartbeat = f"{tag}:heartbeat"
        self.channel = f"{tag}:checkpoints"
        self.generations = f"{tag}.generations"

    def of(self, generation: int) -> PartitionKeys:
        """The keys of another generation of the same."""
        return PartitionKeys(self.projection, self.partition, generation)

    def document(self, document_id: str) -> str:
        return self.documents + document_id

    def index(self, name: str) -> str:
        return self.prefix + name


class Checkpoint(NamedTuple):
    """How far a read model is: it equals the fold of log `log_id` up to `position`.

    A rebuilt model answers no query before it reaches `serve_from`, the end of the log when the rebuild began: until
    then an order it does not know may well exist.
    """

    log_id: UUID
    position: int
    serve_from: int
    generation: int

    @property
    def token(self) -> ConsistencyToken:
        return ConsistencyToken(self.log_id, self.position)

    @property
    def rebuilding(self) -> bool:
        return self.position < self.serve_from

    @classmethod
    def parse(cls, values: Sequence[Any]) -> Checkpoint | None:
        """From the values (bytes or None) of `CHECKPOINT_FIELDS`; None where there is no read model (yet)."""
        if None in values:
            return None
        log_id, position, serve_from, generation = values
        return cls(UUID(log_id.decode()), int(position), int(serve_from), int(generation))


# Of the hash `meta`; the Lua scripts name them too.
CHECKPOINT_FIELDS = ("log_id", "position", "serve_from", "generation")


class Generations(NamedTuple):
    """The generations of a read model, by number. Queries are answered from the live one."""

    live: int = 1
    previous: int | None = None  # was live before, kept for a rollback
    building: int | None = None  # not live yet
    dropping: int | None = None  # of no use any more, not quite removed


async def read_generations(redis: Redis, keys: PartitionKeys) -> Generations:
    """Raises `shared.redis.REDIS_DOWN`."""
    found = await redis.hmget(keys.generations, Generations._fields)
    live, *others = (None if value is None else int(value) for value in found)
    return Generations(live or 1, *others)


async def read_live_checkpoint(redis: Redis, keys: PartitionKeys) -> Checkpoint | None:
    """Where the generation is that queries are answered from. Raises `shared.redis.REDIS_DOWN`."""
    return await read_checkpoint(redis, keys.of((await read_generations(redis, keys)).live))


async def read_checkpoint(redis: Redis, keys: PartitionKeys) -> Checkpoint | None:
    """Where the read model is now. Raises `shared.redis.REDIS_DOWN`."""
    return Checkpoint.parse(await redis.hmget(keys.meta, CHECKPOINT_FIELDS))


# Indexes of the orders. Ids hold no colon, so the names cannot collide.
ALL = "all"


def with_status(status: OrderStatus) -> str:
    return f"status:{status}"


def of_customer(customer_id: str) -> str:
    return f"customer:{customer_id}"


def of_customer_with_status(customer_id: str, status: OrderStatus) -> str:
    return f"customer:{customer_id}:status:{status}"


# A sorted set whose scores are all equal is ordered by its members' bytes (ZRANGE … BYLEX,
# https://redis.io/docs/latest/commands/zrange/), and a member may then start with its sort key: "Lexicographical
# indexes" in https://redis.io/docs/latest/develop/clients/patterns/indexes/. So a member *is* a place in a total order:
# a page starts exactly after its cursor however many orders share an instant or arrive meanwhile, which neither
# offsets nor scores (doubles, with ties) can promise.
PLACE_TIME_DIGITS = 15
_PLACE = re.compile(rf"[0-9a-f]{{{PLACE_TIME_DIGITS}}}[A-Za-z0-9._-]{{1,64}}", re.ASCII)
_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def place_of(at: datetime, document_id: str) -> str:
    """Sorts by time, then by id. Microseconds since year 1, which are never negative, in hexadecimal."""
    return f"{(at - _YEAR_ONE) // _MICROSECOND:0{PLACE_TIME_DIGITS}x}{document_id}"


def is_place(text: str) -> bool:
    return _PLACE.fullmatch(text) is not None
