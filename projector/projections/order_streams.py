"""What every projection of orders has in common: one document an order, folded from its stream."""

from __future__ import annotations

from projector.projection import OutOfOrder, RecordedEvent, Versioned, own_stream
from shared.aggregates.order import ORDER, OrderEvent, OrderPlaced

route = own_stream(ORDER.category)


def check_continues(order_id: str, document: Versioned | None, recorded: RecordedEvent[OrderEvent]) -> None:
    """Raises `OutOfOrder` unless the event is the next of the order: first that it is placed, then what follows."""
    version = 0 if document is None else document.version
    if recorded.version != version + 1 or (type(recorded.event) is OrderPlaced) != (document is None):
        raise OutOfOrder(order_id, version, recorded.version)
