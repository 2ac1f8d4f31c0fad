"""Facts about an order. The stream is `order-<order_id>`; when each happened stands in the event's record.

Amounts are integers in minor units (pence, cents) of the order's currency.
"""

from __future__ import annotations

from typing import final

import msgspec


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

STREAM_PREFIX = "order-"


def stream_of(order_id: str) -> str:
    return STREAM_PREFIX + order_id


def order_of(stream_id: str) -> str:
    """The order id of an order's stream."""
    return stream_id.removeprefix(STREAM_PREFIX)
