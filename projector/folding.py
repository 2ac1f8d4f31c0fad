"""Folds a batch of stored events into documents, in memory; each touched document comes out once. Pure."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import msgspec

from projector.projection import D, Entry, Place, Projection, Recorded
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent

_SLICE = 250  # events folded at a time, a millisecond or two


class PoisonEvent(Exception):
    """The projection cannot digest this event and must not pass it. The cause is chained."""

    def __init__(self, event: StoredEvent, document_id: str, cause: Exception) -> None:
        super().__init__(f"event {event.position} ({event.event_type} of {event.stream_id}): {cause}")
        self.event = event
        self.document_id = document_id
        self.__cause__ = cause


@dataclass(slots=True)
class Folded(Generic[D]):
    """The documents after the events up to `last`; `poison` is why it went no further.

    `parked` are the events behind which their documents stay as they were; `waiting` counts, for every parked
    document, the later events that were not applied.
    """

    documents: dict[str, D] = field(default_factory=dict)
    parked: dict[str, PoisonEvent] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)
    last: StoredEvent | None = None
    events: int = 0
    poison: PoisonEvent | None = None


def documents_needed(
    projection: Projection[D], events: Sequence[StoredEvent], parked: Container[str] = ()
) -> list[str]:
    """Ids of the documents that the events change and that are not born among them."""
    # From the last event to the first, so that the first one of each document is what stays.
    first_versions = {projection.document_id(event.stream_id): event.version for event in reversed(events)}
    return [
        document_id
        for document_id, version in first_versions.items()
        if version > 1 and document_id is not None and document_id not in parked
    ]


async def fold_batch(
    projection: Projection[D],
    events: Sequence[StoredEvent],
    stored: Mapping[str, D],
    parked: Container[str] = (),
    room: int = 0,
) -> tuple[Folded[D], Changes]:
    """`fold`, and what it changes. A document that is folded but cannot be written is its event's fault as well.

    In slices, so that meanwhile the process goes on to send and receive.
    """
    folded: Folded[D] = Folded()
    for first in range(0, len(events), _SLICE):
        fold(projection, events[first : first + _SLICE], stored, parked, room, folded=folded)
        if folded.poison is not None:
            break
        if len(events) > _SLICE:  # else it is over at once, and would only come later
            await asyncio.sleep(0)
    try:
        return folded, changes(projection, stored, folded.documents)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - found again below, at the event that caused it
        folded = fold(projection, events, stored, parked, room, rendering=True)
        return folded, changes(projection, stored, folded.documents)


def fold(
    projection: Projection[D],
    events: Sequence[StoredEvent],
    stored: Mapping[str, D],
    parked: Container[str] = (),
    room: int = 0,
    *,
    rendering: bool = False,
    folded: Folded[D] | None = None,
) -> Folded[D]:
    """Applies the events to the stored documents, in order; after those of `folded`, where there are any.

    Those of `parked` documents wait. An event that cannot be applied parks its document, while there is `room` for so
    many more; without any it ends the fold. `rendering` also tries what is written of a document, after every event.
    """
    folded = Folded() if folded is None else folded
    for event in events:
        document_id = projection.document_id(event.stream_id)
        if document_id is None:
            pass
        elif document_id in folded.parked or document_id in parked:
            folded.waiting[document_id] += 1
        else:
            before = folded.documents.get(document_id) or stored.get(document_id)
            try:
                after = _apply_one(projection, document_id, before, event)
                if rendering:
                    _render(projection, after)
            except MemoryError:
                raise  # of this moment, not of this event
            except Exception as error:  # noqa: BLE001 - whatever it is, the document stays before it and says so
                poison = PoisonEvent(event, document_id, error)
                if len(folded.parked) >= room:
                    folded.poison = poison
                    break
                folded.parked[document_id] = poison
            else:
                folded.documents[document_id] = after
        folded.last = event
        folded.events += 1
    return folded


def _apply_one(projection: Projection[D], document_id: str, before: D | None, stored_event: StoredEvent) -> D:
    event = codec.decode(stored_event.event_type, stored_event.schema_version, stored_event.data)
    recorded = Recorded(event, stored_event.version, stored_event.position, stored_event.occurred_at)
    return projection.apply(document_id, before, recorded)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch does to a read model, ready to be written."""

    documents: dict[str, dict[str, str]]  # id -> document, version and, where lists show one, summary
    removed: dict[str, list[Place]]  # name of the index or the sums -> places
    added: dict[str, list[Place]]


_encode = msgspec.json.Encoder().encode


def changes(projection: Projection[D], stored: Mapping[str, D], documents: Mapping[str, D]) -> Changes:
    """The difference between the documents as stored and as folded."""
    written: dict[str, dict[str, str]] = {}
    removed: defaultdict[str, list[Place]] = defaultdict(list)
    added: defaultdict[str, list[Place]] = defaultdict(list)
    for document_id, document in documents.items():
        written[document_id], entries = _render(projection, document)
        if (before := stored.get(document_id)) is not None:
            entries_before = projection.entries(before)
            for name, place in entries_before - entries:
                removed[name].append(place)
            entries = entries - entries_before
        for name, place in entries:
            added[name].append(place)
    return Changes(written, removed, added)


def _render(projection: Projection[D], document: D) -> tuple[dict[str, str], frozenset[Entry]]:
    """The fields that are written of a document, and its entries."""
    fields = {"document": _encode(document).decode(), "version": str(document.version)}
    if projection.summary is not None:
        fields["summary"] = _encode(projection.summary(document)).decode()
    return fields, projection.entries(document)
