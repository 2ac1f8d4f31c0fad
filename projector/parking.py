"""Streams that stop before an event that cannot be applied, while the others go on.

A document whose event raises is parked: it stays as it was, later events of its stream wait in the log, and what was
wrong is written in the same atomic step as the batch and its checkpoint. A retry folds the stream on from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from projector.folding import Changes, Folded, PoisonEvent, changes, fold
from projector.projection import D, Projection
from projector.session import Session
from shared.eventstore import log as event_log
from shared.eventstore.log import StoredEvent
from shared.logs import get_logger
from shared.metrics import PROJECTION_POISON
from shared.read_models.poison import Poison, describe

# Of one read model. A projection that raises on more than this is broken code, not poisoned: it stops.
MOST_PARKED = 1_000

_log = get_logger()


def poison_of(raised: PoisonEvent) -> Poison:
    """What is kept of an event that has just failed."""
    assert raised.__cause__ is not None
    event = raised.event
    error, text = describe(raised.__cause__)
    return Poison(
        document_id=raised.document_id,
        stream_id=event.stream_id,
        position=event.position,
        version=event.version,
        event_type=event.event_type,
        schema_version=event.schema_version,
        error=error,
        traceback=text,
        at=datetime.now(UTC),
    )


def parked_by(folded: Folded[D], parked: Mapping[str, Poison]) -> dict[str, Poison]:
    """What the fold parks, and what is parked already and more events wait for now."""
    new = {document_id: poison_of(raised) for document_id, raised in folded.parked.items()}
    for document_id, count in folded.waiting.items():
        record = new.get(document_id) or parked[document_id]
        new[document_id] = replace(record, waiting=record.waiting + count)
    return new


def say_parked(projection: str, raised: PoisonEvent) -> None:
    PROJECTION_POISON.labels(projection, "parked").inc()
    event = raised.event
    _log.error(
        "parked a stream before an event that cannot be applied; it waits, the others go on",
        projection=projection,
        position=event.position,
        stream_id=event.stream_id,
        event_type=event.event_type,
        schema_version=event.schema_version,
        error=str(raised.__cause__),
        exc_info=raised.__cause__,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stream changes that was folded on; `parked` where and why it stops again, None when it does not."""

    changes: Changes
    parked: Poison | None
    raised: PoisonEvent | None


async def fold_on(projection: Projection[D], log: Session, poison: Poison, before: D | None, position: int) -> Outcome:
    """Folds a parked stream on, from the event it stopped before up to that position of the log."""
    stored = {} if before is None else {poison.document_id: before}
    document = dict(stored)
    parked: dict[str, Poison] = {}
    raised: PoisonEvent | None = None
    async for events in _pages(log, poison, position):
        folded = fold(projection, events, document, parked, room=1, rendering=True)
        document |= folded.documents
        raised = raised or next(iter(folded.parked.values()), None)
        parked |= parked_by(folded, parked)
    written = {} if document == stored else document
    return Outcome(changes(projection, stored, written), parked.get(poison.document_id), raised)


async def _pages(log: Session, poison: Poison, position: int) -> AsyncIterator[list[StoredEvent]]:
    version, more = poison.version - 1, True
    while more:
        page = await log.read_stream_page(poison.stream_id, version)
        events = [event for event in page if event.position <= position]
        more = len(events) == event_log.PAGE
        if events:
            version = events[-1].version
            yield events
