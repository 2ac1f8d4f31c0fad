"""Orders as customers see them: one document an order, listed by customer, by status and by time."""

from __future__ import annotations

from datetime import datetime

import msgspec

from projector.projection import Entry, Projection, RecordedEvent
from projector.projections.order_streams import check_continues, route
from shared.aggregates.order import ORDER, OrderDocument, OrderEvent, OrderStatus, document_fold
from shared.read_models import keys, order_indexes


class OrderSummary(msgspec.Struct, frozen=True, gc=False):
    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    currency_exponent: int
    total_amount: int
    item_count: int
    placed_at: datetime
    last_event_at: datetime
    version: int


def apply(order_id: str, document: OrderDocument | None, recorded: RecordedEvent[OrderEvent]) -> OrderDocument:
    """The document after the event. Raises `OutOfOrder`."""
    check_continues(order_id, document, recorded)
    return document_fold.apply(order_id, document, recorded.event, recorded.version, recorded.occurred_at)


def entries(document: OrderDocument) -> frozenset[Entry]:
    place = keys.sort_key(document.placed_at, document.order_id)
    status, customer_id = document.status, document.customer_id
    return frozenset(
        (
            (order_indexes.ALL, place),
            (order_indexes.with_status(status), place),
            (order_indexes.of_customer(customer_id), place),
            (order_indexes.of_customer_with_status(customer_id, status), place),
        )
    )


def summary(document: OrderDocument) -> OrderSummary:
    return OrderSummary(
        order_id=document.order_id,
        customer_id=document.customer_id,
        status=document.status,
        currency=document.currency,
        currency_exponent=document.currency_exponent,
        total_amount=document.total_amount,
        item_count=document.item_count,
        placed_at=document.placed_at,
        last_event_at=document.last_event_at,
        version=document.version,
    )


ORDERS = Projection("orders", OrderDocument, route, apply, entries, version=ORDER.document_version, summary=summary)
