"""Orders as customers see them: one document an order, listed by customer, by status and by time."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import assert_never

import msgspec
from msgspec.structs import replace

from projector.projection import Entry, IndexEntry, Projection, Recorded
from projector.projections.order_streams import continues, order_of_stream
from shared import read_model_keys as keys
from shared.aggregates.order import OrderStatus
from shared.events.order import (
    OrderCancelled,
    OrderDelivered,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
    ShippingAddressChanged,
)


class OrderItem(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int
    line_total: int


class OrderDocument(msgspec.Struct, frozen=True):
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


class OrderSummary(msgspec.Struct, frozen=True):
    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    total_amount: int
    item_count: int
    placed_at: datetime
    last_event_at: datetime
    version: int


def apply(order_id: str, document: OrderDocument | None, recorded: Recorded) -> OrderDocument:
    """The document after the event. Raises `OutOfOrder`."""
    continues(order_id, document, recorded)
    event = recorded.event
    if isinstance(event, OrderPlaced):
        return _placed(order_id, event, recorded)
    assert document is not None
    after = partial(replace, document, version=recorded.version, last_event_at=recorded.occurred_at)
    match event:
        case OrderItemAdded(item):
            return after(**_with_items((*document.items, _line(item))))
        case OrderItemRemoved(product_id):
            return after(**_with_items(tuple(item for item in document.items if item.product_id != product_id)))
        case ShippingAddressChanged(shipping_address_id):
            return after(shipping_address_id=shipping_address_id)
        case PaymentConfirmed():
            return after(status=OrderStatus.CONFIRMED)
        case OrderShipped(tracking_number):
            return after(status=OrderStatus.SHIPPED, tracking_number=tracking_number)
        case OrderDelivered():
            return after(status=OrderStatus.DELIVERED)
        case OrderCancelled():
            return after(status=OrderStatus.CANCELLED)
        case _:
            assert_never(event)


def _placed(order_id: str, event: OrderPlaced, recorded: Recorded) -> OrderDocument:
    items = tuple(_line(line) for line in event.items)
    return OrderDocument(
        order_id=order_id,
        customer_id=event.customer_id,
        status=OrderStatus.PENDING,
        currency=event.currency,
        total_amount=sum(item.line_total for item in items),
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


def _with_items(items: tuple[OrderItem, ...]) -> dict[str, object]:
    return {"items": items, "item_count": len(items), "total_amount": sum(item.line_total for item in items)}


def entries(document: OrderDocument) -> frozenset[Entry]:
    place = keys.place_of(document.placed_at, document.order_id)
    status, customer_id = document.status, document.customer_id
    return frozenset(
        (
            IndexEntry(keys.ALL, place),
            IndexEntry(keys.with_status(status), place),
            IndexEntry(keys.of_customer(customer_id), place),
            IndexEntry(keys.of_customer_with_status(customer_id, status), place),
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


ORDERS = Projection("orders", OrderDocument, order_of_stream, order_of_stream, apply, entries, summary=summary)
