"""The status of a read model: its checkpoint, its projector's heartbeat, its generations and what is parked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from shared.read_models.keys import Checkpoint, Generations
from shared.read_models.poison import Poison

MAX_PARKED = 10  # records in a status


class Heartbeat(NamedTuple):
    age_seconds: float  # by the clock of the server that also set its time
    worker: str
    state: str
    reason: str = ""  # why the projector is stuck, when it is
    poison: Poison | None = None  # the event that it is stuck before, when it is one


class Parked(NamedTuple):
    """The number of parked streams, and the records of the first of them by position."""

    streams: int = 0
    first: Sequence[Poison] = ()


class PartitionStatus(NamedTuple):
    """`checkpoint` is None when there is no read model, `heartbeat` when there was never one, or its time lies in the
    future: the server's clock was ahead, and the age is not known."""

    checkpoint: Checkpoint | None
    heartbeat: Heartbeat | None
    parked: Parked


class ProjectionStatus(NamedTuple):
    """All partitions together: the lowest checkpoint, the oldest heartbeat."""

    checkpoint: Checkpoint | None
    heartbeat: Heartbeat | None
    generations: Generations
    parked: Parked
    partitions: Sequence[PartitionStatus]

    @property
    def position(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.position


StatusQuery: TypeAlias = Callable[[], Awaitable[ProjectionStatus]]  # raises ReadModelUnavailable


def combine(generations: Generations, partitions: Sequence[PartitionStatus]) -> ProjectionStatus:
    heartbeats = [partition.heartbeat for partition in partitions]
    heartbeat = None
    if None not in heartbeats:
        known = [one for one in heartbeats if one is not None]
        # A stuck worker needs attention, so it is the one to name, even where another worker's heartbeat is older.
        oldest = max(known, key=lambda one: one.age_seconds)
        heartbeat = next((one for one in known if one.reason), oldest)._replace(age_seconds=oldest.age_seconds)
    first = sorted((poison for one in partitions for poison in one.parked.first), key=lambda poison: poison.position)
    parked = Parked(sum(one.parked.streams for one in partitions), first[:MAX_PARKED])
    checkpoint = Checkpoint.slowest([one.checkpoint for one in partitions])
    return ProjectionStatus(checkpoint, heartbeat, generations, parked, partitions)
