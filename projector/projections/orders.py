"""Orders as customers see them: one document an order, listed by customer, by status and by time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from projector.projection import Entry, Projection, RecordedEvent
from projector.projections.order_streams import check_continues, route
from shared.aggregates.order import (
    ORDER,
    Cancellation,
    FulfilmentStatus,
    OrderCancelled,
    OrderDelivered,
    OrderDocument,
    OrderEvent,
    OrderItem,
    OrderItemAdded,
    OrderItemRemoved,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    Payment,
    PaymentConfirmed,
    PaymentStatus,
    Shipment,
    ShippingAddressChanged,
    amount_due,
)
from shared.currencies import exponent_of
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
    event, version, at = recorded.event, recorded.version, recorded.occurred_at
    if document is None:
        assert type(event) is OrderPlaced
        return _placed(order_id, event, recorded)
    # Types are compared, because asking the type of a msgspec Struct whether this is one (isinstance, match) takes
    # longer each time than everything else here.
    if type(event) is PaymentConfirmed:
        changed = _paid(document, event, at)
    elif type(event) is OrderShipped:
        changed = _shipped(event, at)
    elif type(event) is OrderDelivered:
        changed = _delivered(document, at)
    elif type(event) is OrderCancelled:
        changed = _cancelled(document, event, at)
    elif type(event) is ShippingAddressChanged:
        changed = {"shipping_address_id": event.shipping_address_id}
    elif type(event) is OrderItemAdded:
        changed = _with_items(document, (*document.items, OrderItem.of(event.item)))
    elif type(event) is OrderItemRemoved:
        changed = _with_items(document, tuple([item for item in document.items if item.product_id != event.product_id]))
    else:
        assert type(event) is not OrderPlaced
        assert_never(event)
    return replace(document, version=version, last_event_at=at, **changed)


def _placed(order_id: str, event: OrderPlaced, recorded: RecordedEvent[OrderEvent]) -> OrderDocument:
    items = tuple([OrderItem.of(line) for line in event.items])
    total = sum([item.line_total for item in items])
    return OrderDocument(
        order_id=order_id,
        customer_id=event.customer_id,
        status=OrderStatus.PENDING,
        currency=event.currency,
        currency_exponent=exponent_of(event.currency),
        total_amount=total,
        item_count=len(items),
        items=items,
        shipping_address_id=event.shipping_address_id,
        tracking_number=None,
        payment_status=PaymentStatus.UNPAID,
        fulfilment_status=FulfilmentStatus.UNFULFILLED,
        amount_paid=0,
        amount_due=total,
        refund_due=0,
        payments=(),
        shipments=(),
        cancellation=None,
        placed_at=recorded.occurred_at,
        confirmed_at=None,
        shipped_at=None,
        delivered_at=None,
        last_event_at=recorded.occurred_at,
        version=recorded.version,
    )


def _paid(document: OrderDocument, event: PaymentConfirmed, at: datetime) -> dict[str, Any]:
    return {
        "status": OrderStatus.CONFIRMED,
        "payment_status": PaymentStatus.PAID,
        "amount_paid": event.amount,
        "amount_due": amount_due(document.total_amount, event.amount, cancelled=document.cancellation is not None),
        "payments": (Payment(event.payment_reference, event.amount, at),),
        "confirmed_at": at,
    }


def _shipped(event: OrderShipped, at: datetime) -> dict[str, Any]:
    return {
        "status": OrderStatus.SHIPPED,
        "fulfilment_status": FulfilmentStatus.SHIPPED,
        "tracking_number": event.tracking_number,
        "shipments": (Shipment(event.tracking_number, event.carrier, at, None),),
        "shipped_at": at,
    }


def _delivered(document: OrderDocument, at: datetime) -> dict[str, Any]:
    return {
        "status": OrderStatus.DELIVERED,
        "fulfilment_status": FulfilmentStatus.DELIVERED,
        "shipments": tuple([replace(shipment, delivered_at=at) for shipment in document.shipments]),
        "delivered_at": at,
    }


def _cancelled(document: OrderDocument, event: OrderCancelled, at: datetime) -> dict[str, Any]:
    return {
        "status": OrderStatus.CANCELLED,
        "payment_status": PaymentStatus.REFUND_DUE if event.refund_amount else document.payment_status,
        "amount_due": 0,
        "refund_due": event.refund_amount,
        "cancellation": Cancellation(event.reason, at),
    }


def _with_items(document: OrderDocument, items: tuple[OrderItem, ...]) -> dict[str, Any]:
    total = sum([item.line_total for item in items])
    due = amount_due(total, document.amount_paid, cancelled=document.cancellation is not None)
    return {"items": items, "item_count": len(items), "total_amount": total, "amount_due": due}


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
