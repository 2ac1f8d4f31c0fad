"""The order: its events, state, upcasters of older event versions, and its document in time travel. Pure.

The stream is `order-<order_id>`; the event's record says when each event happened. Amounts are integers in minor units
(pence, cents) of the order's currency. The rules that decide are in `command_service/domain/order.py`; the query
service folds the state as well, for time travel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import assert_never, final, get_args

import msgspec

from shared.aggregates.aggregate import Aggregate, Owner, PastState, Payload
from shared.currencies import exponent_of


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    quantity: int
    unit_price: int
    product_name: str | None = None


@final
class OrderPlaced(msgspec.Struct, frozen=True, gc=False):
    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]
    shipping_address_id: str


@final
class OrderItemAdded(msgspec.Struct, frozen=True, gc=False):
    item: OrderLine


@final
class OrderItemRemoved(msgspec.Struct, frozen=True, gc=False):
    """Every line of the product was taken off the order."""

    product_id: str


@final
class ShippingAddressChanged(msgspec.Struct, frozen=True, gc=False):
    shipping_address_id: str
    reason: str | None = None


@final
class PaymentConfirmed(msgspec.Struct, frozen=True, gc=False):
    payment_reference: str
    amount: int


@final
class OrderShipped(msgspec.Struct, frozen=True, gc=False):
    tracking_number: str
    carrier: str | None = None


@final
class OrderDelivered(msgspec.Struct, frozen=True, gc=False):
    pass


@final
class OrderCancelled(msgspec.Struct, frozen=True, gc=False):
    """`refund_amount` is what had been paid and is owed back; 0 when nothing was."""

    reason: str
    refund_amount: int


OrderEvent = (
    OrderPlaced
    | OrderItemAdded
    | OrderItemRemoved
    | ShippingAddressChanged
    | PaymentConfirmed
    | OrderShipped
    | OrderDelivered
    | OrderCancelled
)


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Order:
    """An order at one version. `payment`, `shipment` and `cancellation` hold the event that made them so."""

    status: OrderStatus
    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]
    shipping_address_id: str
    payment: PaymentConfirmed | None = None
    shipment: OrderShipped | None = None
    cancellation: OrderCancelled | None = None

    @property
    def total(self) -> int:
        return total_of(self.items)


State = Order | None  # None: not placed yet


def total_of(items: tuple[OrderLine, ...]) -> int:
    return sum(line.quantity * line.unit_price for line in items)


def evolve(state: State, event: OrderEvent) -> Order:
    """The state after the event. The log is trusted: what was decided once is not judged again."""
    if isinstance(event, OrderPlaced):
        return Order(OrderStatus.PENDING, event.customer_id, event.currency, event.items, event.shipping_address_id)
    assert state is not None, "an order's stream begins with OrderPlaced"
    match event:
        case OrderItemAdded(item):
            return replace(state, items=(*state.items, item))
        case OrderItemRemoved(product_id):
            return replace(state, items=tuple(line for line in state.items if line.product_id != product_id))
        case ShippingAddressChanged(shipping_address_id):
            return replace(state, shipping_address_id=shipping_address_id)
        case PaymentConfirmed():
            return replace(state, status=OrderStatus.CONFIRMED, payment=event)
        case OrderShipped():
            return replace(state, status=OrderStatus.SHIPPED, shipment=event)
        case OrderDelivered():
            return replace(state, status=OrderStatus.DELIVERED)
        case OrderCancelled():
            return replace(state, status=OrderStatus.CANCELLED, cancellation=event)
        case _:
            assert_never(event)


# --- document ------------------------------------------------------------------------------------------------------


class PaymentStatus(StrEnum):
    UNPAID = "unpaid"
    PAID = "paid"
    REFUND_DUE = "refund_due"


class FulfilmentStatus(StrEnum):
    UNFULFILLED = "unfulfilled"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


class OrderItem(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int
    line_total: int

    @classmethod
    def of(cls, line: OrderLine) -> OrderItem:
        total = line.quantity * line.unit_price
        return cls(line.product_id, line.product_name, line.quantity, line.unit_price, total)


class Payment(msgspec.Struct, frozen=True, gc=False):
    payment_reference: str
    amount: int
    captured_at: datetime


class Shipment(msgspec.Struct, frozen=True, gc=False):
    tracking_number: str
    carrier: str | None
    shipped_at: datetime
    delivered_at: datetime | None


class Cancellation(msgspec.Struct, frozen=True, gc=False):
    reason: str
    at: datetime


class OrderDocument(msgspec.Struct, frozen=True, gc=False):
    """What `GET /orders/{order_id}` answers, field by field. Amounts are in minor units of the currency, of which there
    are 10 to the power of `currency_exponent` in its unit.

    Time travel renders it from the state, the projection `orders` updates it event by event; a test compares the two.
    """

    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    currency_exponent: int
    total_amount: int
    item_count: int  # lines, not pieces
    items: tuple[OrderItem, ...]
    shipping_address_id: str
    tracking_number: str | None
    payment_status: PaymentStatus
    fulfilment_status: FulfilmentStatus
    amount_paid: int
    amount_due: int
    refund_due: int
    payments: tuple[Payment, ...]
    shipments: tuple[Shipment, ...]
    cancellation: Cancellation | None
    placed_at: datetime
    confirmed_at: datetime | None
    shipped_at: datetime | None
    delivered_at: datetime | None
    last_event_at: datetime
    version: int


def document(order_id: str, past: PastState[Order]) -> OrderDocument:
    order = past.state
    confirmed_at, shipped_at, delivered_at, cancelled_at = (
        past.last_at.get(event.__name__) for event in (PaymentConfirmed, OrderShipped, OrderDelivered, OrderCancelled)
    )
    refund_due = order.cancellation.refund_amount if order.cancellation else 0
    paid = order.payment.amount if order.payment else 0
    return OrderDocument(
        order_id=order_id,
        customer_id=order.customer_id,
        status=order.status,
        currency=order.currency,
        currency_exponent=exponent_of(order.currency),
        total_amount=order.total,
        item_count=len(order.items),
        items=tuple([OrderItem.of(line) for line in order.items]),
        shipping_address_id=order.shipping_address_id,
        tracking_number=order.shipment.tracking_number if order.shipment else None,
        payment_status=_payment_status(order, refund_due),
        fulfilment_status=_fulfilment_status(order),
        amount_paid=paid,
        amount_due=amount_due(order.total, paid, cancelled=order.cancellation is not None),
        refund_due=refund_due,
        payments=(
            (Payment(order.payment.payment_reference, paid, confirmed_at),) if order.payment and confirmed_at else ()
        ),
        shipments=(
            (Shipment(order.shipment.tracking_number, order.shipment.carrier, shipped_at, delivered_at),)
            if order.shipment and shipped_at
            else ()
        ),
        cancellation=(
            Cancellation(order.cancellation.reason, cancelled_at) if order.cancellation and cancelled_at else None
        ),
        placed_at=past.began_at,
        confirmed_at=confirmed_at,
        shipped_at=shipped_at,
        delivered_at=delivered_at,
        last_event_at=past.last_event_at,
        version=past.version,
    )


def amount_due(total: int, paid: int, *, cancelled: bool) -> int:
    return 0 if cancelled else total - paid


def _payment_status(order: Order, refund_due: int) -> PaymentStatus:
    if refund_due:
        return PaymentStatus.REFUND_DUE
    return PaymentStatus.UNPAID if order.payment is None else PaymentStatus.PAID


def _fulfilment_status(order: Order) -> FulfilmentStatus:
    if order.status is OrderStatus.DELIVERED:
        return FulfilmentStatus.DELIVERED
    return FulfilmentStatus.UNFULFILLED if order.shipment is None else FulfilmentStatus.SHIPPED


def _order_placed_1_to_2(payload: Payload) -> Payload:
    """Version 1 has no currency: all of its orders are in pounds."""
    return {"currency": "GBP", **payload}


ORDER: Aggregate[Order, OrderEvent] = Aggregate(
    category="order",
    state=Order,
    events=get_args(OrderEvent),
    evolve=evolve,
    versions={OrderPlaced: 2},
    upcasters={(OrderPlaced, 1): _order_placed_1_to_2},
    owner=Owner("customer", "customers", OrderPlaced, "customer_id"),
    document=document,
    document_version=2,
    example=OrderPlaced("17850", "GBP", (OrderLine("71053", 6, 339),), "united-kingdom"),
)
