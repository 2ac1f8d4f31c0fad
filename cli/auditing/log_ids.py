"""The ids that the log has had: its first, from which the chain begins, and those given after a restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from cli.auditing.finding import Finding, Head, Kind, Renewal
from cli.auditing.times import rfc3339


class Term(NamedTuple):
    """How long the log had an id: from the event after `begun` on, until it was renewed."""

    begun: int
    ended: Renewal | None


def first_id(head: Head, renewals: Sequence[Renewal]) -> UUID:
    return renewals[0].replaces if renewals else head.log_id


def terms(head: Head, renewals: Sequence[Renewal]) -> dict[UUID, Term]:
    """Of every id that the log has had."""
    begun = [0, *(renewal.position for renewal in renewals)]
    ids = [first_id(head, renewals), *(renewal.log_id for renewal in renewals)]
    return {log_id: Term(*term) for log_id, term in zip(ids, zip(begun, [*renewals, None], strict=True), strict=True)}


def check(head: Head, renewals: Sequence[Renewal]) -> Finding | None:
    """Whether one id followed another up to that of the head."""
    known, position = first_id(head, renewals), 0
    for number, renewal in enumerate(renewals, start=1):
        if renewal.replaces != known:
            detail = f"row {number} of log_ids replaces {renewal.replaces}, but the log had the id {known}"
            return Finding(0, Kind.HEAD, detail)
        if renewal.position < position:
            detail = f"row {number} of log_ids is of position {renewal.position}, the one before of {position}"
            return Finding(0, Kind.HEAD, detail)
        known, position = renewal.log_id, renewal.position
    if known != head.log_id:
        return Finding(0, Kind.HEAD, f"log_head has the id {head.log_id}, the last that log_ids gave is {known}")
    if position > head.position:
        detail = f"the log ends at position {head.position}, log_ids has it at {position}"
        return Finding(max(head.position, 0) + 1, Kind.CUT_TAIL, detail)
    return None


def in_words(renewal: Renewal) -> str:
    """The reason escaped: who wrote it must not be able to write other lines of the verdict."""
    return (
        f"{renewal.log_id} after position {renewal.position}, given at {rfc3339(renewal.given_at)}"
        f" instead of {renewal.replaces}: {renewal.reason!r}"
    )
