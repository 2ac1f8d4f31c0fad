"""What every projection of orders has in common: one document an order, folded from its stream."""

from __future__ import annotations

from projector.projection import OutOfOrder, Recorded, Versioned
from shared.aggregates.order import ORDER, OrderEvent, OrderPlaced


def order_of_stream(stream_id: str) -> str | None:
    """The id of the order whose stream it is; None: it is not an order's."""
    return ORDER.id_of(stream_id)


def continues(order_id: str, document: Versioned | None, recorded: Recorded[OrderEvent]) -> None:
    """Raises `OutOfOrder` unless the event is the next of the order: first that it is placed, then what follows."""
    version = 0 if document is None else document.version
    if recorded.version != version + 1 or (type(recorded.event) is OrderPlaced) != (document is None):
        raise OutOfOrder(order_id, version, recorded.version)
