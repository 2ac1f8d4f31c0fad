"""Folds a batch of stored events into documents, in memory; each touched document comes out once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias

import msgspec

from projector.projection import D, Entry, Projection, Recorded, Share
from shared import codec
from shared.event_store import StoredEvent


class PoisonEvent(Exception):
    """The projection cannot digest this event and must not pass it. The cause is chained."""

    def __init__(self, event: StoredEvent, cause: Exception) -> None:
        super().__init__(f"event {event.position} ({event.event_type} of {event.stream_id}): {cause}")
        self.event = event
        self.__cause__ = cause


@dataclass(slots=True)
class Folded(Generic[D]):
    """The documents after the events up to `last`; `poison` is why it went no further."""

    documents: dict[str, D] = field(default_factory=dict)
    last: StoredEvent | None = None
    events: int = 0
    poison: PoisonEvent | None = None


def documents_needed(projection: Projection[D], events: Iterable[StoredEvent]) -> list[str]:
    """Ids of the documents that the events change and that are not born among them."""
    first_versions: dict[str, int] = {}
    for event in events:
        if (document_id := projection.document_id(event.stream_id)) is not None:
            first_versions.setdefault(document_id, event.version)
    return [document_id for document_id, version in first_versions.items() if version > 1]


def fold(projection: Projection[D], events: Sequence[StoredEvent], stored: Mapping[str, D]) -> Folded[D]:
    """Applies the events to the stored documents, in order, up to the first one that cannot be applied."""
    folded: Folded[D] = Folded()
    for event in events:
        try:
            _apply_one(projection, event, stored, folded.documents)
        except Exception as error:  # noqa: BLE001 - whatever it is, the projection stops here and says so
            folded.poison = PoisonEvent(event, error)
            break
        folded.last = event
        folded.events += 1
    return folded


def _apply_one(
    projection: Projection[D], stored_event: StoredEvent, stored: Mapping[str, D], documents: dict[str, D]
) -> None:
    document_id = projection.document_id(stored_event.stream_id)
    if document_id is None:
        return
    event = codec.decode(stored_event.event_type, stored_event.schema_version, stored_event.data)
    recorded = Recorded(event, stored_event.version, stored_event.position, stored_event.occurred_at)
    before = documents.get(document_id) or stored.get(document_id)
    documents[document_id] = projection.apply(document_id, before, recorded)


Place: TypeAlias = str | Share


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch does to a read model, ready to be written."""

    documents: dict[str, dict[str, str]]  # id -> document, version and, where lists show one, summary
    removed: dict[str, list[Place]]  # name of the index or the sums -> places
    added: dict[str, list[Place]]


_encode = msgspec.json.Encoder().encode


def changes(projection: Projection[D], stored: Mapping[str, D], documents: Mapping[str, D]) -> Changes:
    """The difference between the documents as stored and as folded."""
    out = Changes({}, {}, {})
    nothing: frozenset[Entry] = frozenset()
    summary = projection.summary
    for document_id, document in documents.items():
        fields = {"document": _encode(document).decode(), "version": str(document.version)}
        if summary is not None:
            fields["summary"] = _encode(summary(document)).decode()
        out.documents[document_id] = fields
        before = stored.get(document_id)
        entries_before = nothing if before is None else projection.entries(before)
        entries = projection.entries(document)
        for name, place in entries_before - entries:
            out.removed.setdefault(name, []).append(place)
        for name, place in entries - entries_before:
            out.added.setdefault(name, []).append(place)
    return out
