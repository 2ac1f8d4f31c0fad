"""The order's state, and how each event changes it.

Pure. Kept apart from the rules (`command_service/domain/order.py`) because the query service folds it as well, to show
what an order was at an earlier time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from shared.events.order import (
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
    ShippingAddressChanged,
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
