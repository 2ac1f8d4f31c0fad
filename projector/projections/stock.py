"""Stock as shops show it: one document a product."""

from __future__ import annotations

from typing import Any

from projector.projection import Entry, OutOfOrder, Projection, RecordedEvent
from shared.aggregates.stock import STOCK, Stock, StockDocument, StockEvent, evolve


def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
    """The product whose stock it is."""
    return (event.aggregate_id,) if event.category == STOCK.category else ()


def apply(product_id: str, document: StockDocument | None, recorded: RecordedEvent[StockEvent]) -> StockDocument:
    """The document after the event. Raises `OutOfOrder`."""
    version, at = recorded.version, recorded.occurred_at
    known = 0 if document is None else document.version
    if version != known + 1:
        raise OutOfOrder(product_id, known, version)
    before = None
    if document is not None:
        before, at = Stock(document.on_hand, document.reserved, document.sold), max(document.last_event_at, at)
    stock = evolve(before, recorded.event)
    return StockDocument(product_id, stock.on_hand, stock.reserved, stock.available, stock.sold, at, version)


def entries(_document: StockDocument) -> frozenset[Entry]:
    """No index lists stock."""
    return frozenset()


STOCKS = Projection("stock", StockDocument, route, apply, entries, version=STOCK.document_version)
