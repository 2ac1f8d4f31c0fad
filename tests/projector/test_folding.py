"""Folding a batch: the same whatever the batches, each index entry exactly where it belongs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.folding import changes, fold
from projector.projection import Entry
from projector.projections.orders import ORDERS
from projector.routing import documents_needed, route
from shared.aggregates.order import OrderDocument, OrderItemRemoved
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
        routed = route(ORDERS, batch)
        loaded = {name: documents[name] for name in documents_needed(routed) if name in documents}
        folded = fold(ORDERS, routed, loaded)
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

    change = changes(ORDERS, {}, fold(ORDERS, route(ORDERS, log), {}).documents)

    assert change.documents["a"]["version"] == "2"
    assert change.removed == {}
    assert sorted(change.added) == ["all", "customer:alice", "customer:alice:status:CONFIRMED", "status:CONFIRMED"]


def test_every_document_that_a_batch_changes_is_asked_for_once_but_those_that_are_parked() -> None:
    log = [stored(placed(), "new", 1, 1), stored(paid(), "old", 2, 2), stored(paid(), "new", 2, 3)]

    assert documents_needed(route(ORDERS, log)) == {"new": 1, "old": 2}
    assert documents_needed(route(ORDERS, log), parked={"old"}) == {"new": 1}


def test_folding_stops_before_the_event_that_cannot_be_read() -> None:
    unreadable = stored(paid(), "a", 2, 2)._replace(event_type="OrderTeleported")
    log = [stored(placed(), "a", 1, 1), unreadable, stored(placed(), "b", 1, 3)]

    folded = fold(ORDERS, route(ORDERS, log), {})

    assert folded.events == 1
    assert folded.documents.keys() == {"a"}
    assert folded.poison is not None
    assert folded.poison.event.position == 2
    assert isinstance(folded.poison.__cause__, UnknownEventType)


@pytest.mark.parametrize("position", [0, 1])
def test_events_of_other_streams_are_passed(position: int) -> None:
    log = [stored(placed(), "a", 1, 1), stored(OrderItemRemoved("MUG"), "a", 2, 2)]
    log.insert(position, log[0]._replace(stream_id="customer-1", event_type="CustomerRegistered"))

    folded = fold(ORDERS, route(ORDERS, log[: position + 1]), {})

    assert folded.poison is None
    assert folded.events == position + 1
