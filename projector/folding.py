"""Folds a page of events into documents, in memory; each changed document comes out once. Pure."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from projector.projection import D, IndexEntry, Projection, RecordedEvent
from projector.routing import PoisonEvent, Routed

LARGE = 16 * 1024  # characters of a document that a store need not write whole
_SLICE = 250  # events folded at a time, a millisecond or two


@dataclass(slots=True)
class Folded(Generic[D]):
    """The documents after the first `events` events; `poison` is why it went no further.

    `parked` are the events behind which their documents stay as they were; `waiting` names, for every parked document,
    the streams of the later events that were not applied, one entry an event.
    """

    documents: dict[str, D] = field(default_factory=dict)
    parked: dict[str, PoisonEvent] = field(default_factory=dict)
    waiting: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    events: int = 0
    poison: PoisonEvent | None = None

    def park(self, event: RecordedEvent[Any], failed: Sequence[PoisonEvent], waiting: Sequence[str]) -> None:
        """Passes an event that could not be applied to some documents, and that others wait with."""
        self.parked.update((poison.document_id, poison) for poison in failed)
        for document_id in waiting:
            self.waiting[document_id].append(event.stream_id)


async def fold_batch(
    projection: Projection[D],
    routed: Routed,
    stored: Mapping[str, D],
    parked: Container[str] = (),
    may_park: int = 0,
) -> tuple[Folded[D], Changes]:
    """`fold`, and what it changes. A document that is folded but cannot be written is its event's fault as well.

    In slices, so that the process goes on to send and receive.
    """
    folded: Folded[D] = Folded()
    events = routed.events
    for first in range(0, len(events), _SLICE):
        some = Routed(events[first : first + _SLICE])
        fold(projection, some, stored, parked, may_park, folded=folded)
        if folded.poison is not None:
            break
        if len(events) > _SLICE:  # else it is over at once, and would only come later
            await asyncio.sleep(0)
    try:
        changed = changes(projection, stored, folded.documents)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - found again below, at the event that caused it
        folded = fold(projection, routed, stored, parked, may_park, rendering=True)
        changed = changes(projection, stored, folded.documents)
    folded.poison = folded.poison or routed.poison
    return folded, changed


def fold(
    projection: Projection[D],
    routed: Routed,
    stored: Mapping[str, D],
    parked: Container[str] = (),
    may_park: int = 0,
    *,
    rendering: bool = False,
    folded: Folded[D] | None = None,
) -> Folded[D]:
    """Applies the events to the stored documents, in order; after those of `folded`, where there are any.

    Those of `parked` documents wait. An event that cannot be applied to a document parks that document, while there is
    `may_park` for so many more; without any the event changes nothing and ends the fold. `rendering` also tries what is
    written of a document, after every event.
    """
    folded = Folded() if folded is None else folded
    documents, apply = folded.documents, projection.apply
    failed: list[PoisonEvent] = []
    waiting: list[str] = []
    for event, document_ids in routed.events:
        before = {one: documents.get(one) for one in document_ids} if len(document_ids) > 1 else {}
        for document_id in document_ids:
            if document_id in folded.parked or document_id in parked:
                waiting.append(document_id)
                continue
            try:
                document = apply(document_id, documents.get(document_id) or stored.get(document_id), event)
                if rendering:
                    projection.render(document)
            except MemoryError:
                raise  # of this moment, not of this event
            except Exception as error:  # noqa: BLE001 - whatever it is, the document stays before it and says so
                failed.append(PoisonEvent(event, document_id, error))
            else:
                documents[document_id] = document
        if failed and len(folded.parked) + len(failed) > may_park:
            folded.poison = failed[0]
            _restore(documents, before)
            break
        if failed or waiting:
            folded.park(event, failed, waiting)
            failed, waiting = [], []
        folded.events += 1
    return folded


def _restore(documents: dict[str, D], before: Mapping[str, D | None]) -> None:
    """Undoes what one event has changed."""
    for document_id, document in before.items():
        if document is None:
            documents.pop(document_id, None)
        else:
            documents[document_id] = document


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch does to a read model, ready to be written."""

    documents: dict[str, dict[str, str]]  # id -> document, version and, where lists show one, summary
    removed: dict[str, list[IndexEntry]]  # name of the index or the rollup -> entries
    added: dict[str, list[IndexEntry]]
    replaced: dict[str, str] = field(default_factory=dict)  # id -> a large document as it is stored

    @property
    def size(self) -> int:
        """Of the documents, in characters."""
        return sum([len(text) for fields in self.documents.values() for text in fields.values()])


def changes(projection: Projection[D], stored: Mapping[str, D], documents: Mapping[str, D]) -> Changes:
    """The difference between the documents as stored and as folded."""
    written: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    removed: defaultdict[str, list[IndexEntry]] = defaultdict(list)
    added: defaultdict[str, list[IndexEntry]] = defaultdict(list)
    for document_id, document in documents.items():
        written[document_id], entries = projection.render(document)
        if (before := stored.get(document_id)) is not None:
            if len(written[document_id]["document"]) >= LARGE:
                replaced[document_id] = projection.encode(before)
            entries_before = projection.entries(before)
            for name, entry in entries_before - entries:
                removed[name].append(entry)
            entries = entries - entries_before
        for name, entry in entries:
            added[name].append(entry)
    return Changes(written, removed, added, replaced)
