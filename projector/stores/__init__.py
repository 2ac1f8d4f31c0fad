"""Where read models are kept. A store applies a batch atomically with its checkpoint, or refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from projector.folding import Changes
from shared.read_model_keys import Checkpoint


class Verdict(StrEnum):
    APPLIED = "applied"
    MOVED = "moved"  # the checkpoint is not the one the batch started from; nothing was changed
    FENCED = "fenced"  # a projector with a higher epoch has taken over; nothing was changed


@dataclass(frozen=True, slots=True)
class Batch:
    """The events after `expected` up to `position`, folded. `hash` is the log's hash at that position."""

    expected: Checkpoint
    position: int
    hash: bytes
    changes: Changes


class Moved(Exception):
    """The read model's checkpoint is not where this projector left it: Redis was emptied, replaced or rolled back."""


class Fenced(Exception):
    """A projector with a higher epoch has written to the read model."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} has taken over")
        self.epoch = epoch
