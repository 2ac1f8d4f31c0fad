"""Orders as customers see them: one document an order, listed by customer, by status and by time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from projector.projection import Entry, Projection, RecordedEvent
from projector.projections.order_streams import check_continues, route
from shared.aggregates.order import (
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    PaymentConfirmed,
    ShippingAddressChanged,
)
from shared.read_models import keys, order_indexes


class OrderItem(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int
    line_total: int


class OrderDocument(msgspec.Struct, frozen=True, gc=False):
    """What `GET /orders/{order_id}` answers, field by field. Amounts are in minor units of the currency."""

    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    total_amount: int
    item_count: int  # lines, not pieces
    items: tuple[OrderItem, ...]
    shipping_address_id: str
    tracking_number: str | None
    placed_at: datetime
    last_event_at: datetime
    version: int


class OrderSummary(msgspec.Struct, frozen=True, gc=False):
    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    total_amount: int
    item_count: int
    placed_at: datetime
    last_event_at: datetime
    version: int


def apply(order_id: str, document: OrderDocument | None, recorded: RecordedEvent[OrderEvent]) -> OrderDocument:
    """The document after the event. Raises `OutOfOrder`."""
    check_continues(order_id, document, recorded)
    event, version, at = recorded.event, recorded.version, recorded.occurred_at
    if document is None:
        assert type(event) is OrderPlaced
        return _placed(order_id, event, recorded)
    # Types are compared, because asking the type of a msgspec Struct whether this is one (isinstance, match) takes
    # longer each time than everything else here.
    if type(event) is PaymentConfirmed:
        return replace(document, version=version, last_event_at=at, status=OrderStatus.CONFIRMED)
    if type(event) is OrderShipped:
        shipped, tracking_number = OrderStatus.SHIPPED, event.tracking_number
        return replace(document, version=version, last_event_at=at, status=shipped, tracking_number=tracking_number)
    if type(event) is OrderDelivered:
        return replace(document, version=version, last_event_at=at, status=OrderStatus.DELIVERED)
    if type(event) is OrderCancelled:
        return replace(document, version=version, last_event_at=at, status=OrderStatus.CANCELLED)
    if type(event) is ShippingAddressChanged:
        return replace(document, version=version, last_event_at=at, shipping_address_id=event.shipping_address_id)
    if type(event) is OrderItemAdded:
        items = (*document.items, _line(event.item))
        return replace(document, version=version, last_event_at=at, **_with_items(items))
    if type(event) is OrderItemRemoved:
        items = tuple([item for item in document.items if item.product_id != event.product_id])
        return replace(document, version=version, last_event_at=at, **_with_items(items))
    assert type(event) is not OrderPlaced
    assert_never(event)


def _placed(order_id: str, event: OrderPlaced, recorded: RecordedEvent[OrderEvent]) -> OrderDocument:
    items = tuple([_line(line) for line in event.items])
    return OrderDocument(
        order_id=order_id,
        customer_id=event.customer_id,
        status=OrderStatus.PENDING,
        currency=event.currency,
        total_amount=sum([item.line_total for item in items]),
        item_count=len(items),
        items=items,
        shipping_address_id=event.shipping_address_id,
        tracking_number=None,
        placed_at=recorded.occurred_at,
        last_event_at=recorded.occurred_at,
        version=recorded.version,
    )


def _line(line: OrderLine) -> OrderItem:
    return OrderItem(
        line.product_id, line.product_name, line.quantity, line.unit_price, line.quantity * line.unit_price
    )


def _with_items(items: tuple[OrderItem, ...]) -> dict[str, Any]:
    return {"items": items, "item_count": len(items), "total_amount": sum([item.line_total for item in items])}


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
        total_amount=document.total_amount,
        item_count=document.item_count,
        placed_at=document.placed_at,
        last_event_at=document.last_event_at,
        version=document.version,
    )


ORDERS = Projection("orders", OrderDocument, route, apply, entries, summary=summary)
