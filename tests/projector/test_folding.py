"""Folding a batch: the same whatever the batches, each index entry exactly where it belongs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.folding import changes, documents_needed, fold
from projector.projection import Entry
from projector.projections.orders import ORDERS, OrderDocument
from shared.aggregates.order import OrderItemRemoved
from shared.eventstore.codec import UnknownEventType
from shared.eventstore.log import StoredEvent
from tests.orders import paid, placed
from tests.projector.histories import logs, stored

Documents = dict[str, OrderDocument]
Entries = set[Entry]


def project(log: list[StoredEvent], ends: list[int]) -> tuple[Documents, Entries]:
    """Documents and index entries after the log, folded in batches that end at those places."""
    documents: Documents = {}
    entries: Entries = set()
    for start, end in pairwise([0, *ends, len(log)]):
        batch = log[start:end]
        loaded = {document_id: documents[document_id] for document_id in documents_needed(ORDERS, batch)}
        folded = fold(ORDERS, batch, loaded)
        assert folded.poison is None
        change = changes(ORDERS, loaded, folded.documents)
        for index, places in change.removed.items():
            entries.difference_update((index, place) for place in places)
        for index, places in change.added.items():
            entries.update((index, place) for place in places)
        documents |= folded.documents
    return documents, entries


@pytest.mark.promise("read-models", "A read model equals the fold of the log, for any split into batches")
@given(logs(), st.data())
def test_any_split_into_batches_gives_what_one_by_one_gives(log: list[StoredEvent], data: st.DataObject) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(log)))))

    assert project(log, ends) == project(log, list(range(len(log))))


@given(logs(), st.data())
def test_the_entries_are_those_of_the_final_documents(log: list[StoredEvent], data: st.DataObject) -> None:
    documents, entries = project(log, sorted(data.draw(st.lists(st.integers(0, len(log))))))

    assert entries == {tuple(entry) for document in documents.values() for entry in ORDERS.entries(document)}


def test_each_touched_document_is_written_once() -> None:
    log = [stored(placed(), "a", 1, 1), stored(paid(), "a", 2, 2)]

    change = changes(ORDERS, {}, fold(ORDERS, log, {}).documents)

    assert change.documents["a"]["version"] == "2"
    assert change.removed == {}
    assert sorted(change.added) == ["all", "customer:alice", "customer:alice:status:CONFIRMED", "status:CONFIRMED"]


def test_only_documents_from_before_the_batch_are_loaded() -> None:
    log = [stored(placed(), "new", 1, 1), stored(paid(), "old", 2, 2), stored(paid(), "new", 2, 3)]

    assert documents_needed(ORDERS, log) == ["old"]


def test_folding_stops_before_the_event_that_cannot_be_read() -> None:
    unreadable = stored(paid(), "a", 2, 2)._replace(event_type="OrderTeleported")
    log = [stored(placed(), "a", 1, 1), unreadable, stored(placed(), "b", 1, 3)]

    folded = fold(ORDERS, log, {})

    assert folded.last == log[0]
    assert folded.events == 1
    assert folded.documents.keys() == {"a"}
    assert folded.poison is not None
    assert folded.poison.event == unreadable
    assert isinstance(folded.poison.__cause__, UnknownEventType)


@pytest.mark.parametrize("position", [0, 1])
def test_events_of_other_streams_are_passed(position: int) -> None:
    log = [stored(placed(), "a", 1, 1), stored(OrderItemRemoved("MUG"), "a", 2, 2)]
    log.insert(position, log[0]._replace(stream_id="customer-1", event_type="CustomerRegistered"))

    folded = fold(ORDERS, log[: position + 1], {})

    assert folded.poison is None
    assert folded.events == position + 1
