"""The ids of the log: the first, with which the chain begins, and those given after a restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from cli.auditing.finding import Finding, HeadRow, Kind, LogIdChange
from cli.auditing.times import rfc3339


class LogIdSpan(NamedTuple):
    """The events of one id: from the one after position `begun` on, until the id was changed."""

    begun: int
    ended: LogIdChange | None


def first_id(head: HeadRow, changes: Sequence[LogIdChange]) -> UUID:
    return changes[0].replaces if changes else head.log_id


def log_id_spans(head: HeadRow, changes: Sequence[LogIdChange]) -> dict[UUID, LogIdSpan]:
    """The span of every id that the log has had."""
    begun = [0, *(change.position for change in changes)]
    ids = [first_id(head, changes), *(change.log_id for change in changes)]
    return {
        log_id: LogIdSpan(*span) for log_id, span in zip(ids, zip(begun, [*changes, None], strict=True), strict=True)
    }


def check_log_ids(head: HeadRow, changes: Sequence[LogIdChange]) -> Finding | None:
    """The fault in the sequence of ids; None when each replaces the one before, up to that of the head."""
    known, position = first_id(head, changes), 0
    for number, change in enumerate(changes, start=1):
        if change.replaces != known:
            detail = f"row {number} of log_ids replaces {change.replaces}, but the log had the id {known}"
            return Finding(0, Kind.HEAD, detail)
        if change.position < position:
            detail = f"row {number} of log_ids is of position {change.position}, the one before of {position}"
            return Finding(0, Kind.HEAD, detail)
        known, position = change.log_id, change.position
    if known != head.log_id:
        return Finding(0, Kind.HEAD, f"log_head has the id {head.log_id}, the last that log_ids gave is {known}")
    if position > head.position:
        detail = f"the log ends at position {head.position}, log_ids has it at {position}"
        return Finding(max(head.position, 0) + 1, Kind.CUT_TAIL, detail)
    return None


def describe(change: LogIdChange) -> str:
    """One line. The reason is escaped, so that it cannot fake other lines of the result."""
    return (
        f"{change.log_id} after position {change.position}, given at {rfc3339(change.given_at)}"
        f" instead of {change.replaces}: {change.reason!r}"
    )
