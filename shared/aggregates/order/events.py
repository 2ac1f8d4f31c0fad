"""The events of the order, and the values in them. Pure.

A field with a default is left out of a stored event where it has it. Amounts are integers in minor units (pence, cents)
of the order's currency.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias, final

import msgspec

from shared.aggregates.address import Address

Metadata: TypeAlias = dict[str, str]  # of the client, for the client


# --- values --------------------------------------------------------------------------------------------------------


class OrderLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A line without an id has its number on the order as its id, see `lines.identified`."""

    product_id: str
    quantity: int
    unit_price: int
    product_name: str | None = None
    line_id: str | None = None
    sku: str | None = None
    metadata: Metadata | None = None

    @property
    def total(self) -> int:
        return self.quantity * self.unit_price


class ChargeKind(StrEnum):
    SHIPPING = "shipping"
    TAX = "tax"
    FEE = "fee"
    DISCOUNT = "discount"


class Charge(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of one line, or of the order. The amount of a discount is at most 0, every other at least 0."""

    charge_id: str
    kind: ChargeKind
    amount: int
    label: str | None = None
    line_id: str | None = None


class LineQuantity(msgspec.Struct, frozen=True, gc=False):
    """So many pieces of a line."""

    line_id: str
    quantity: int


class ReceivedLine(msgspec.Struct, frozen=True, gc=False):
    """So many pieces of a line that came back: sold again, or written off."""

    line_id: str
    quantity: int
    restock: bool


# --- the order and its lines ---------------------------------------------------------------------------------------


@final
class OrderPlaced(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Every charge has an id; a charge of one line names the id that the line has."""

    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]
    shipping_address_id: str
    charges: tuple[Charge, ...] = ()
    shipping_address: Address | None = None
    external_reference: str | None = None
    note: str | None = None
    metadata: Metadata | None = None


@final
class OrderItemAdded(msgspec.Struct, frozen=True, gc=False):
    item: OrderLine


@final
class OrderItemRemoved(msgspec.Struct, frozen=True, gc=False):
    """Every line of the product was taken off the order, with the charges of these lines."""

    product_id: str


@final
class OrderLineQuantityChanged(msgspec.Struct, frozen=True, gc=False):
    """Quantity 0 takes the line off, with its charges. The order's total changed by `total_change`."""

    line_id: str
    product_id: str
    quantity: int
    previous_quantity: int
    total_change: int


@final
class ShippingAddressChanged(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    shipping_address_id: str
    reason: str | None = None
    shipping_address: Address | None = None


@final
class OrderHeld(msgspec.Struct, frozen=True, gc=False):
    """Nothing is shipped until the hold is released."""

    reason: str


@final
class OrderHoldReleased(msgspec.Struct, frozen=True, gc=False):
    pass


@final
class OrderCancelled(msgspec.Struct, frozen=True, gc=False):
    """`refund_amount` is what had been paid and is owed back; 0 when nothing was."""

    reason: str
    refund_amount: int


@final
class OrderItemsReserved(msgspec.Struct, frozen=True, gc=False):
    """From now on, all pieces of these products are reserved; their stock says so in the same append."""

    product_ids: tuple[str, ...]


@final
class OrderReservationExpired(msgspec.Struct, frozen=True, gc=False):
    """The order was not confirmed in time, and has nothing reserved any more."""


# --- money ---------------------------------------------------------------------------------------------------------


@final
class PaymentConfirmed(msgspec.Struct, frozen=True, gc=False):
    """All that was due was paid at once, which confirms the order."""

    payment_reference: str
    amount: int


@final
class PaymentAuthorised(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The amount is reserved; it can be captured."""

    payment_reference: str
    amount: int
    method: str | None = None


@final
class PaymentReceived(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Money that was captured without an authorisation that we know of."""

    payment_reference: str
    amount: int
    method: str | None = None
    account_id: str | None = None


@final
class PaymentCaptured(msgspec.Struct, frozen=True, gc=False):
    """A part of an authorisation, or all of it, was captured."""

    payment_reference: str
    amount: int


@final
class PaymentVoided(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was left of an authorisation was given up."""

    payment_reference: str
    amount: int
    reason: str | None = None


@final
class PaymentRefunded(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The order costs `price_reduction` less by it: what was refunded beyond what was owed."""

    refund_id: str
    payment_reference: str
    amount: int
    reason: str
    price_reduction: int = 0


@final
class OrderConfirmed(msgspec.Struct, frozen=True, gc=False):
    """What was captured and authorised covers what the order costs. `PaymentConfirmed` says so itself."""


# --- parcels -------------------------------------------------------------------------------------------------------


@final
class OrderShipped(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """All that was left was shipped. A shipment without an id has its number as its id."""

    tracking_number: str
    carrier: str | None = None
    shipment_id: str | None = None


@final
class ItemsShipped(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A part was shipped; more is left."""

    shipment_id: str
    tracking_number: str
    lines: tuple[LineQuantity, ...]
    carrier: str | None = None


@final
class ShipmentDelivered(msgspec.Struct, frozen=True, gc=False):
    shipment_id: str


@final
class OrderDelivered(msgspec.Struct, frozen=True, gc=False):
    """Every shipment was delivered, and nothing is left to ship."""


@final
class ReturnRequested(msgspec.Struct, frozen=True, gc=False):
    return_id: str
    lines: tuple[LineQuantity, ...]
    reason: str


@final
class ReturnReceived(msgspec.Struct, frozen=True, gc=False):
    """Pieces of a return arrived. The order costs `price_reduction` less by it: what was charged for these pieces."""

    return_id: str
    lines: tuple[ReceivedLine, ...]
    price_reduction: int


ItemEvent = (
    OrderItemAdded
    | OrderItemRemoved
    | OrderLineQuantityChanged
    | ShippingAddressChanged
    | OrderHeld
    | OrderHoldReleased
    | OrderItemsReserved
    | OrderReservationExpired
)
MoneyEvent = (
    PaymentConfirmed
    | PaymentAuthorised
    | PaymentReceived
    | PaymentCaptured
    | PaymentVoided
    | PaymentRefunded
    | OrderConfirmed
    | OrderCancelled
)
ParcelEvent = OrderShipped | ItemsShipped | ShipmentDelivered | OrderDelivered | ReturnRequested | ReturnReceived
OrderEvent = OrderPlaced | ItemEvent | MoneyEvent | ParcelEvent
