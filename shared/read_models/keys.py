"""Where the read models live in Redis: every key, field and member, for the projector that writes and the query
service that reads.

All keys of one partition of a projection share a hash tag, so they live on one node of a Redis Cluster and one script
may touch them all:

    {orders.0}:meta         hash         the checkpoint and its writer, see `Checkpoint`
    {orders.0}:heartbeat    hash         the worker's last heartbeat
    {orders.0}:doc:<id>     hash         document (JSON, ready to serve; a large one goes on in document.1 …),
                                         summary (JSON for lists), version; where it stays behind an event that cannot
                                         be applied: parked (`shared.read_models.poison`)
    {orders.0}:parked       sorted set   the ids of those documents, by the event's position
    {orders.0}:retry        set          ids of documents to retry
    {orders.0}:<index>      sorted set   the documents of an index by their sort keys, see `sort_key`
    {orders.0}:checkpoints  channel      each new checkpoint, see `shared.read_models.checkpoint_message`
    {orders.0}.generations  hash         which generations there are, see `Generations`; of partition 0 alone

These are the names of generation 1. A later one, 2 say, has keys of its own, `{orders.0}.2:meta` and so on; heartbeat
and channel are shared by all. Partition 1 of a generation that has several has the tag `{orders.1}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from shared.eventstore.token import ConsistencyToken


def partition_of(key: str, partitions: int) -> int:
    """The partition that everything with this key belongs to. It must never change: data lies where it says."""
    return crc32(key.encode()) % partitions if partitions > 1 else 0


def row_name(projection: str, partition: int) -> str:
    """What a partition is called in PostgreSQL's tables."""
    return f"{projection}.{partition}" if partition else projection


def glob_literal(text: str) -> str:
    """A pattern of Redis that matches this text only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def lease_name(projection: str, generation: int, partition: int) -> str:
    """Of the right to work on a partition, see `shared.eventstore.lease`."""
    return f"projector of {PartitionKeys(projection, partition, generation).prefix}"


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
        self.parked = self.prefix + "parked"
        self.retry = self.prefix + "retry"
        self.heartbeat = f"{tag}:heartbeat"
        self.channel = f"{tag}:checkpoints"
        self.generations = f"{tag}.generations"

    def of(self, generation: int) -> PartitionKeys:
        """The keys of another generation of the same."""
        return PartitionKeys(self.projection, self.partition, generation)

    def each(self, partitions: int) -> list[PartitionKeys]:
        """The keys of every partition of the same generation."""
        return [PartitionKeys(self.projection, partition, self.generation) for partition in range(partitions)]

    @property
    def channels(self) -> str:
        """A pattern of the channels of every partition that there is or will be."""
        return f"{{{self.projection}.*}}:checkpoints"

    def partition_of_channel(self, channel: str) -> int:
        """Raises `ValueError` where it is not the channel of a partition."""
        return int(channel.removeprefix(f"{{{self.projection}.").removesuffix("}:checkpoints"))

    def document(self, document_id: str) -> str:
        return self.documents + document_id

    def index(self, name: str) -> str:
        return self.prefix + name


class Checkpoint(NamedTuple):
    """How far a read model is: it equals the fold of log `log_id` up to `position`.

    A rebuilt model answers no query before it reaches `ready_at`, the end of the log when the rebuild began: until
    then an order it does not know may well exist.

    `parked_revision` names the state of what is parked: it is another one after each change. Parked documents are only
    shown up to their poison event, so position and `parked_revision` together name one state of the read model.
    """

    log_id: UUID
    position: int
    ready_at: int
    generation: int
    parked_revision: str = ""

    @property
    def token(self) -> ConsistencyToken:
        return ConsistencyToken(self.log_id, self.position)

    @property
    def rebuilding(self) -> bool:
        return self.position < self.ready_at

    def shows(self, token: ConsistencyToken) -> bool:
        """Whether an answer from here is one to that token."""
        return self.log_id == token.log_id and self.position >= token.position and not self.rebuilding

    @classmethod
    def slowest(cls, partitions: Sequence[Checkpoint | None]) -> Checkpoint | None:
        """Where partitions of one generation are together: all of them show the log up to the lowest position.

        It is being rebuilt while any of them is. None where one is not there, or they are not of one log.
        """
        known = [checkpoint for checkpoint in partitions if checkpoint is not None]
        if len(known) < len(partitions) or len({checkpoint.log_id for checkpoint in known}) != 1:
            return None
        ready_at = max((one.ready_at for one in known if one.rebuilding), default=0)
        return min(known, key=lambda checkpoint: checkpoint.position)._replace(ready_at=ready_at)

    @classmethod
    def parse(cls, values: Sequence[Any]) -> Checkpoint | None:
        """From the values (bytes or None) of `CHECKPOINT_FIELDS`; None where there is no read model (yet)."""
        log_id, position, ready_at, generation, *parked_revision = values
        if None in (log_id, position, ready_at, generation):
            return None
        name = "" if parked_revision in ([], [None]) else parked_revision[0].decode()
        return cls(UUID(log_id.decode()), int(position), int(ready_at), int(generation), name)


# Of the hash `meta`; the Lua scripts name them too.
CHECKPOINT_FIELDS = ("log_id", "position", "ready_at", "generation", "parked_revision")


class Generations(NamedTuple):
    """The generations of a read model, by number. Queries are answered from the live one."""

    live: int = 1
    previous: int | None = None  # was live before, kept for a rollback
    building: int | None = None  # not live yet
    dropping: int | None = None  # of no use any more, not quite removed
    partitions: Mapping[int, int] = MappingProxyType({})  # generation -> how many it has; 1 where it is not named

    def partitions_of(self, generation: int) -> int:
        return self.partitions.get(generation, 1)

    @property
    def not_live(self) -> list[int]:
        return sorted({number for number in (self.previous, self.building, self.dropping) if number is not None})


PARTITIONS_FIELD = "partitions:"  # of the hash `generations`, and a generation's number


# A sorted set whose scores are all equal is ordered by the bytes of its members (ZRANGE … BYLEX,
# https://redis.io/docs/latest/commands/zrange/), and a member may start with its sort key ("Lexicographical indexes" in
# https://redis.io/docs/latest/develop/clients/patterns/indexes/). So the entries of an index are totally ordered: a
# page starts exactly after its cursor however many documents share an instant or arrive meanwhile. Neither offsets nor
# scores (doubles, with ties) can promise that.
SORT_KEY_TIME_DIGITS = 15
_INDEX_ENTRY = re.compile(rf"[0-9a-f]{{{SORT_KEY_TIME_DIGITS}}}[A-Za-z0-9._ -]{{1,128}}", re.ASCII)
_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)


def sort_key(at: datetime, document_id: str) -> str:
    """Sorts by time, then by id. Microseconds since year 1, which are never negative, in hexadecimal."""
    since = at - _YEAR_ONE
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return f"{microseconds:0{SORT_KEY_TIME_DIGITS}x}{document_id}"


def is_index_entry(text: str) -> bool:
    return _INDEX_ENTRY.fullmatch(text) is not None
