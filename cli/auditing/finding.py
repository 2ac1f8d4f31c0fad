"""What an audit finds: the first bad position, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class Kind(StrEnum):
    """What is wrong. `tools/verify_log.py` uses the same words."""

    CHANGED = "changed event"
    REHASHED = "changed hash"
    MISSING = "missing position"
    REMOVED = "removed event"
    INSERTED = "inserted event"
    REORDERED = "reordered event"
    DUPLICATE = "duplicate position"
    BROKEN = "broken chain"
    CUT_TAIL = "truncated tail"
    HEAD = "rewritten head"
    FOREIGN = "another log"
    TIME = "time going backwards"
    VERSION = "version gap"
    SEAL = "contradicted seal"


@dataclass(frozen=True, slots=True)
class Finding:
    position: int
    kind: Kind
    detail: str

    def __str__(self) -> str:
        return f"position {self.position}: {self.kind}: {self.detail}"


class HeadRow(NamedTuple):
    """The row of log_head. `recorded_at` is in µs since 2000-01-01 UTC; of an empty log it is -infinity."""

    log_id: UUID
    position: int
    hash: bytes
    recorded_at: int


class LogIdChange(NamedTuple):
    """A row of log_ids: `log_id` replaced `replaces` when the log ended at `position`. `given_at` is in µs since
    2000-01-01 UTC."""

    log_id: UUID
    replaces: UUID
    position: int
    given_at: int
    reason: str
