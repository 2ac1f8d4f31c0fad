"""The stock projection: given a document and an event, then this document."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from projector.projection import OutOfOrder
from projector.projections.stock import STOCKS
from projector.routing import record
from query_service import time_travel
from shared.aggregates.aggregate import PastState
from shared.aggregates.stock import STOCK, Stock, StockAdjusted, StockDocument, StockEvent, StockReceived
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from tests.stocks import NOW, expired, released, reserved, returned, shipped


def stored(events: list[StockEvent]) -> list[StoredEvent]:
    """Rows of a log that is made up, an hour apart."""
    at = [NOW + timedelta(hours=number) for number in range(len(events))]
    return [
        StoredEvent(nr, "stock-MUG", nr, UUID(int=nr), *codec.encode(event), "{}", at[nr - 1], at[nr - 1], bytes(32))
        for nr, event in enumerate(events, start=1)
    ]


def projected(rows: list[StoredEvent]) -> StockDocument | None:
    document: StockDocument | None = None
    for row in rows:
        document = STOCKS.apply("MUG", document, record(row))
    return document


def test_a_product_shows_its_stock() -> None:
    events: list[StockEvent] = [StockReceived(9), StockAdjusted(-1, "lost"), reserved(5), released(1), expired(1)]
    document = projected(stored([*events, shipped(2), returned(1)]))
    assert document == StockDocument("MUG", 7, 1, 6, 1, NOW + timedelta(hours=6), 7)


@pytest.mark.parametrize("missing", [0, 1])
def test_an_event_that_does_not_continue_its_stream_is_refused(missing: int) -> None:
    rows = stored([StockReceived(1), StockReceived(2), StockReceived(3)])
    del rows[missing]
    with pytest.raises(OutOfOrder):
        projected(rows)


def test_an_event_of_another_aggregate_changes_no_stock() -> None:
    [row] = stored([StockReceived(1)])
    assert STOCKS.route(record(row)) == ("MUG",)
    assert STOCKS.route(record(row._replace(stream_id="order-MUG"))) == ()


_EVENTS: st.SearchStrategy[StockEvent] = st.one_of(
    [st.integers(1, 9).map(event) for event in (StockReceived, reserved, released, expired, shipped, returned)]
)


@for_all(st.lists(_EVENTS, min_size=1, max_size=12))
def test_the_document_at_every_version_equals_that_of_time_travel_byte_for_byte(events: list[StockEvent]) -> None:
    rows = stored(events)
    past: PastState[Stock] | None = None
    for row in rows:
        past = time_travel.advance(STOCK, past, row)
        rendered = msgspec.json.encode(STOCK.render("MUG", past))
        assert rendered == msgspec.json.encode(projected(rows[: row.version]))
