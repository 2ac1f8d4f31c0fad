"""Which documents events change: the rows of the log, with the names of their streams parsed, routed to documents."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Any

from projector.projection import D, Projection, RecordedEvent
from shared.aggregates.aggregate import split_stream
from shared.eventstore.log import StoredEvent


class PoisonEvent(Exception):
    """The projection cannot apply this event and must not pass it. The cause is chained.

    `document_id` is empty where it is not known which documents the event changes.
    """

    def __init__(self, event: RecordedEvent[Any], document_id: str, cause: Exception) -> None:
        super().__init__(f"event {event.position} ({event.event_type} of {event.stream_id}): {cause}")
        self.event = event
        self.document_id = document_id
        self.__cause__ = cause


@dataclass(frozen=True, slots=True)
class Routed:
    """A page of events, each with the ids of the documents that it changes; `poison` is why it ends early."""

    events: Sequence[tuple[RecordedEvent[Any], Sequence[str]]]
    poison: PoisonEvent | None = None

    def first(self, count: int) -> Routed:
        """The first so many of them."""
        return self if count >= len(self.events) else Routed(self.events[:count])

    def events_without(self, document_ids: Collection[str]) -> int:
        """How many events there are before the first that changes one of these documents."""
        if not document_ids:
            return len(self.events)
        excluded = frozenset(document_ids)
        return next(nr for nr, (_, changed) in enumerate(self.events) if not excluded.isdisjoint(changed))


def record(stored: StoredEvent) -> RecordedEvent[Any]:
    """The event, with the name of its stream parsed."""
    category, aggregate_id = split_stream(stored.stream_id)
    return RecordedEvent(category, aggregate_id, *stored)


def route(projection: Projection[D], events: Sequence[StoredEvent]) -> Routed:
    """Which documents the events change. It ends before an event of which the projection cannot tell."""
    routed: list[tuple[RecordedEvent[Any], Sequence[str]]] = []
    for stored in events:
        event = record(stored)
        try:
            routed.append((event, projection.route(event)))
        except MemoryError:
            raise  # of this moment, not of this event
        except Exception as error:  # noqa: BLE001 - whatever it is, the projection stops before the event and says so
            return Routed(routed, PoisonEvent(event, "", error))
    return Routed(routed)


def documents_needed(routed: Routed, parked: Container[str] = ()) -> dict[str, int]:
    """Ids of the documents that the events change, in the order in which they do; the first event of each here has that
    version of its stream."""
    versions: dict[str, int] = {}
    for event, document_ids in routed.events:
        for document_id in document_ids:
            if document_id not in versions and document_id not in parked:
                versions[document_id] = event.version
    return versions
