"""Processes as operators see them: one document a process, listed by kind, by state and by time."""

from __future__ import annotations

from datetime import datetime

import msgspec

from projector.projection import Entry, Projection, RecordedEvent, check_next, own_stream
from shared.aggregates.process import PROCESS, ProcessDocument, ProcessEvent, fold
from shared.read_models import keys, process_indexes


class ProcessSummary(msgspec.Struct, frozen=True):
    process_id: str
    kind: str
    subject_id: str
    state: str
    outcome: str | None
    stuck: str | None
    stuck_since: datetime | None
    waits_for: list[str]  # effects and timers
    next_due_at: datetime | None  # of its timers
    started_at: datetime
    last_event_at: datetime
    version: int


def apply(process_id: str, document: ProcessDocument | None, recorded: RecordedEvent[ProcessEvent]) -> ProcessDocument:
    """The document after the event. Raises `OutOfOrder`."""
    check_next(process_id, document, recorded)
    return fold(process_id, document, recorded.event, recorded.version, recorded.occurred_at)


def entries(document: ProcessDocument) -> frozenset[Entry]:
    place = keys.sort_key(document.started_at, document.process_id)
    return frozenset(
        (process_indexes.name_of(kind, state), place)
        for kind in (None, document.kind)
        for state in (None, document.state)
    )


def summary(document: ProcessDocument) -> ProcessSummary:
    return ProcessSummary(
        process_id=document.process_id,
        kind=document.kind,
        subject_id=document.subject_id,
        state=document.state,
        outcome=document.outcome,
        stuck=document.stuck,
        stuck_since=document.stuck_since,
        waits_for=[*(one.effect for one in document.effects.values()), *document.timers],
        next_due_at=min(document.timers.values(), default=None),
        started_at=document.started_at,
        last_event_at=document.last_event_at,
        version=document.version,
    )


PROCESSES = Projection(
    "processes",
    ProcessDocument,
    own_stream(PROCESS.category),
    apply,
    entries,
    version=PROCESS.document_version,
    summary=summary,
)
