"""An order as it was: which of its events count at a moment, and the document they fold to. Pure.

There are two times. `as_of` asks what had happened by then (`occurred_at`, business time), `known_at` what we had been
told by then (`recorded_at`, the log's clock). A backdated order had happened long before it was known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from shared.aggregates.order import Order, OrderLine, evolve
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent


@dataclass(frozen=True, slots=True)
class PastOrder:
    """An order after the first `version` of its events."""

    order: Order
    placed_at: datetime
    last_event_at: datetime
    version: int


def after(past: PastOrder | None, stored: StoredEvent) -> PastOrder:
    """The order after its next event; None is the order before its first. Raises what `codec.decode` raises."""
    event = codec.decode(stored.event_type, stored.schema_version, stored.data)
    if past is None:
        return PastOrder(evolve(None, event), stored.occurred_at, stored.occurred_at, stored.version)
    return PastOrder(evolve(past.order, event), past.placed_at, stored.occurred_at, stored.version)


class OrderItem(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int
    line_total: int


class OrderDocument(msgspec.Struct, frozen=True):
    """Field by field what the projection `orders` serves. That both render the same bytes is tested, not shared: the
    projector keeps its documents up to date event by event and knows no aggregate."""

    order_id: str
    customer_id: str
    status: str
    currency: str
    total_amount: int
    item_count: int
    items: tuple[OrderItem, ...]
    shipping_address_id: str
    tracking_number: str | None
    placed_at: datetime
    last_event_at: datetime
    version: int


def document(order_id: str, past: PastOrder) -> OrderDocument:
    order = past.order
    return OrderDocument(
        order_id=order_id,
        customer_id=order.customer_id,
        status=order.status.value,
        currency=order.currency,
        total_amount=order.total,
        item_count=len(order.items),
        items=tuple([_item(line) for line in order.items]),
        shipping_address_id=order.shipping_address_id,
        tracking_number=order.shipment.tracking_number if order.shipment else None,
        placed_at=past.placed_at,
        last_event_at=past.last_event_at,
        version=past.version,
    )


def _item(line: OrderLine) -> OrderItem:
    return OrderItem(
        line.product_id, line.product_name, line.quantity, line.unit_price, line.quantity * line.unit_price
    )
