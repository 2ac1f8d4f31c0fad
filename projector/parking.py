"""Documents that stop before an event that cannot be applied, while the others go on.

A document whose event raises is parked: it stays as it was, its later events wait in the log, of whatever stream they
are, and the error is written in the same atomic step as the batch and its checkpoint. A retry folds the document on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from projector.folding import Changes, Folded, changes, fold
from projector.projection import D, Projection
from projector.routing import PoisonEvent, route
from shared.eventstore.feed import Feed
from shared.eventstore.log import StoredEvent
from shared.eventstore.subscription import LogSession
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
        owner=event.owner,
    )


def parked_by(folded: Folded[D], parked: Mapping[str, Poison]) -> dict[str, Poison]:
    """What the fold parks, and what is parked already and more events wait for now."""
    new = {document_id: poison_of(raised) for document_id, raised in folded.parked.items()}
    for document_id, streams in folded.waiting.items():
        record = new.get(document_id) or parked[document_id]
        several = record.several_streams or any(stream_id != record.stream_id for stream_id in streams)
        new[document_id] = replace(record, waiting=record.waiting + len(streams), several_streams=several)
    return new


def log_parked(projection: str, raised: PoisonEvent) -> None:
    PROJECTION_POISON.labels(projection, "parked").inc()
    event = raised.event
    _log.error(
        "document parked",
        projection=projection,
        position=event.position,
        stream_id=event.stream_id,
        event_type=event.event_type,
        schema_version=event.schema_version,
        error=str(raised.__cause__),
        exc_info=raised.__cause__,
    )


@dataclass(frozen=True, slots=True)
class RetryResult:
    """What a document changes that was folded on; `parked`: where and why it stops again, None when it does not."""

    changes: Changes
    parked: Poison | None
    raised: PoisonEvent | None


async def fold_on(
    projection: Projection[D], log: LogSession, poison: Poison, before: D | None, position: int, page: int
) -> RetryResult:
    """Folds a parked document on, from the event it stopped before up to that position of the log, by pages."""
    projection = projection.only(poison.document_id)
    stored = {} if before is None else {poison.document_id: before}
    document = dict(stored)
    parked: dict[str, Poison] = {}
    raised: PoisonEvent | None = None
    async for events in _pages(log, projection.feed, poison, position, page):
        folded = fold(projection, route(projection, events), document, parked, may_park=1, rendering=True)
        document |= folded.documents
        raised = raised or next(iter(folded.parked.values()), None)
        parked |= parked_by(folded, parked)
    written = {} if document == stored else document
    return RetryResult(changes(projection, stored, written), parked.get(poison.document_id), raised)


async def _pages(
    log: LogSession, feed: Feed, poison: Poison, position: int, page: int
) -> AsyncIterator[list[StoredEvent]]:
    """The events that may wait: of one stream where no other has any, else all since the poison."""
    version, after = poison.version - 1, poison.position - 1
    while after < position:
        if poison.several_streams:
            found = (await log.read(after, page, feed=feed)).events
        else:
            found = await log.read_stream_page(poison.stream_id, version, feed)
        events = [event for event in found if event.position <= position]
        if events:
            yield events
        if not events or len(events) < len(found):
            return
        version, after = events[-1].version, events[-1].position
