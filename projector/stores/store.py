"""What the engine demands of a store of documents: it applies a batch atomically with the checkpoint, or refuses it and
changes nothing. The engine's other promises rest on this one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from projector.folding import Changes
from shared.postgres import CONNECTION_LOST
from shared.read_models.keys import Checkpoint
from shared.read_models.poison import Poison
from shared.redis import REDIS_DOWN

EVERYTHING = "*"  # no id of a document
UNAVAILABLE = (*CONNECTION_LOST, *REDIS_DOWN)


class ApplyResult(StrEnum):
    APPLIED = "applied"
    MISMATCH = "moved"  # the checkpoint is not the one the batch started from; nothing was changed
    FENCED = "fenced"  # a projector with a higher epoch has taken over; nothing was changed
    EXISTS = "exists"  # a document that the batch takes for new is there already; nothing was changed


@dataclass(frozen=True, slots=True)
class Batch:
    """The events after `expected` up to `position`, folded. `hash` is the log's hash at that position.

    `parked` are documents that stop before an event from now on, or that more events wait for; `unparked` stop no more.
    A batch with either has a `parked_revision`, a name never given before.
    """

    expected: Checkpoint
    position: int
    hash: bytes
    changes: Changes
    parked: Mapping[str, Poison] = field(default_factory=dict)
    unparked: Collection[str] = ()
    parked_revision: str = ""
    new: Collection[str] = ()  # ids of documents that were folded without being loaded: there must be none

    @property
    def reached(self) -> Checkpoint:
        """The checkpoint after the batch."""
        return self.expected._replace(
            position=self.position, parked_revision=self.parked_revision or self.expected.parked_revision
        )


class ClaimedCheckpoint(NamedTuple):
    """The checkpoint of a read model, and the log's hash there."""

    checkpoint: Checkpoint
    hash: bytes


class CheckpointMismatch(Exception):
    """The checkpoint is not where this projector left it: the store was emptied, replaced or rolled back."""


class Fenced(Exception):
    """A projector with a higher epoch has written to the read model."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} has taken over")
        self.epoch = epoch


class VersionMismatch(Exception):
    """Another version of the projection's code folds this generation; ours may not go on with it."""

    def __init__(self, generation: int, theirs: int, ours: int) -> None:
        super().__init__(
            f"generation {generation} is folded by version {theirs} of the projection's code, this is version {ours}:"
            " rebuild the read model with this program, or run the other"
        )


class Store(Protocol):
    """One partition of a generation of a read model.

    Every method raises what is in `UNAVAILABLE` while the server is away.
    """

    async def apply(self, batch: Batch, epoch: int) -> ApplyResult:
        """Writes the batch and moves the checkpoint, or changes nothing and says why.

        Sending it twice, as a client may when a connection breaks, is harmless: the second time has `MISMATCH`.
        """
        ...

    async def load(self, expected: Checkpoint, document_ids: Sequence[str], max_bytes: int) -> dict[str, bytes | None]:
        """The documents (JSON) of those ids, None where there is none, all as of the expected checkpoint: from the
        first id to that whose document reaches `max_bytes`. Ids after it are not in the result.

        Raises `CheckpointMismatch`.
        """
        ...

    async def checkpoint(self) -> Checkpoint | None:
        """Where the read model is; None when there is none."""
        ...

    async def claim(self, epoch: int) -> ClaimedCheckpoint | None:
        """Fences every lower epoch. Returns the checkpoint, None where there is no read model.

        Raises `Fenced` and `VersionMismatch`.
        """
        ...

    async def reset(self, epoch: int, log_id: UUID, ready_at: int) -> Checkpoint:
        """Removes whatever is there, also what another log left behind, and begins at position 0 of `log_id`.

        No query is answered from it before it reaches `ready_at`. Raises `CheckpointMismatch` when another projector
        claimed the read model or it was emptied meanwhile; then nothing of the other's is touched.
        """
        ...

    async def heartbeat(
        self, epoch: int, worker: str, state: str, reason: str = "", poison: Poison | None = None
    ) -> None:
        """Says that `worker` lives, and what keeps it where it is stuck: `poison` where that is an event.

        A projector with a higher epoch has the last word.
        """
        ...

    async def heartbeat_age(self, worker: str, state: str, excuse: str, most_seconds: float) -> float | None:
        """Seconds since the last heartbeat; None when there never was one, or its time lies in the future.

        After more than `most_seconds` it is written down what keeps `worker` from the work: its `excuse`, unless that
        is empty. That is no heartbeat.
        """
        ...

    async def parked(self, expected: Checkpoint) -> list[Poison]:
        """What is parked as of the expected checkpoint, by position. Raises `CheckpointMismatch`."""
        ...

    async def count_parked(self) -> int: ...

    async def ask_retry(self, document_id: str) -> None:
        """Leaves word that a parked document (`EVERYTHING`: all, and what the projector is stuck at) be tried again."""
        ...

    async def retries(self) -> frozenset[str]:
        """What was asked to be tried again."""
        ...

    async def retried(self, asked: Collection[str]) -> None:
        """Deletes the requests for what was tried."""
        ...
