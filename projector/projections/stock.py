"""Stock as shops show it: one document a product."""

from __future__ import annotations

from projector.projection import Entry, Projection, RecordedEvent, check_next, own_stream
from shared.aggregates.stock import STOCK, Stock, StockDocument, StockEvent, evolve


def apply(product_id: str, document: StockDocument | None, recorded: RecordedEvent[StockEvent]) -> StockDocument:
    """The document after the event. Raises `OutOfOrder`."""
    check_next(product_id, document, recorded)
    before, at = None, recorded.occurred_at
    if document is not None:
        before, at = Stock(document.on_hand, document.reserved, document.sold), max(document.last_event_at, at)
    stock = evolve(before, recorded.event)
    return StockDocument(product_id, stock.on_hand, stock.reserved, stock.available, stock.sold, at, recorded.version)


def entries(_document: StockDocument) -> frozenset[Entry]:
    """No index lists stock."""
    return frozenset()


STOCKS = Projection("stock", StockDocument, own_stream(STOCK.category), apply, entries, version=STOCK.document_version)
