"""The order: its events, state, upcasters of older event versions, and its document. Pure.

The stream is `order-<order_id>`; the event's record says when each event happened. The rules that decide are in
`command_service/domain/order/`.
"""

from __future__ import annotations

from typing import get_args

from shared.aggregates.aggregate import Aggregate, DocumentFold, Owner, Payload
from shared.aggregates.order.document import (
    FulfilmentStatus,
    OrderDocument,
    PaymentStatus,
)
from shared.aggregates.order.document_fold import apply
from shared.aggregates.order.events import (
    Charge,
    ChargeKind,
    ItemsShipped,
    LineQuantity,
    Metadata,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderItemAdded,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
    ReceivedLine,
    ReturnReceived,
    ReturnRequested,
    ShipmentDelivered,
    ShippingAddressChanged,
)
from shared.aggregates.order.lines import (
    total_of,
)
from shared.aggregates.order.state import (
    Order,
    OrderStatus,
    Payment,
    Return,
    Shipment,
    State,
    evolve,
)

__all__ = [
    "ORDER",
    "Charge",
    "ChargeKind",
    "FulfilmentStatus",
    "ItemsShipped",
    "LineQuantity",
    "Metadata",
    "Order",
    "OrderCancelled",
    "OrderConfirmed",
    "OrderDelivered",
    "OrderDocument",
    "OrderEvent",
    "OrderHeld",
    "OrderHoldReleased",
    "OrderItemAdded",
    "OrderItemRemoved",
    "OrderItemsReserved",
    "OrderLine",
    "OrderLineQuantityChanged",
    "OrderPlaced",
    "OrderReservationExpired",
    "OrderShipped",
    "OrderStatus",
    "Payment",
    "PaymentAuthorised",
    "PaymentCaptured",
    "PaymentConfirmed",
    "PaymentReceived",
    "PaymentRefunded",
    "PaymentStatus",
    "PaymentVoided",
    "ReceivedLine",
    "Return",
    "ReturnReceived",
    "ReturnRequested",
    "Shipment",
    "ShipmentDelivered",
    "ShippingAddressChanged",
    "State",
    "evolve",
    "total_of",
]


def _order_placed_1_to_2(payload: Payload) -> Payload:
    """Version 1 has no currency: all of its orders are in pounds."""
    return {"currency": "GBP", **payload}


def _more_optional_fields(payload: Payload) -> Payload:
    """The version before has none of the optional fields that were added."""
    return payload


ORDER: Aggregate[Order, OrderEvent] = Aggregate(
    category="order",
    state=Order,
    events=get_args(OrderEvent),
    evolve=evolve,
    versions={OrderPlaced: 3, OrderItemAdded: 2, OrderShipped: 2, ShippingAddressChanged: 2},
    upcasters={
        (OrderPlaced, 1): _order_placed_1_to_2,
        (OrderPlaced, 2): _more_optional_fields,
        (OrderItemAdded, 1): _more_optional_fields,
        (OrderShipped, 1): _more_optional_fields,
        (ShippingAddressChanged, 1): _more_optional_fields,
    },
    owner=Owner("customer", "customers", OrderPlaced, "customer_id", example_id="17850"),
    document_fold=DocumentFold(OrderDocument, apply),
    document_version=3,
    example=OrderPlaced("17850", "GBP", (OrderLine("71053", 6, 339),), "united-kingdom"),
    example_id="536365",
)
