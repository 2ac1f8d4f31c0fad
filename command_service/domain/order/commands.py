"""The commands on an order."""

from __future__ import annotations

from dataclasses import dataclass

from command_service.domain.product import CatalogueTerms
from shared.aggregates.address import Address
from shared.aggregates.order import Charge, LineQuantity, Metadata, OrderLine, ReceivedLine


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """A charge without an id gets its number as its id. A known customer is registered and has a payment method."""

    order_id: str
    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]
    shipping_address_id: str
    charges: tuple[Charge, ...] = ()
    shipping_address: Address | None = None
    external_reference: str | None = None
    note: str | None = None
    metadata: Metadata | None = None
    customer_must_be_known: bool = False
    catalogue: CatalogueTerms | None = None  # None: it has no say


@dataclass(frozen=True, slots=True)
class AddOrderItem:
    order_id: str
    item: OrderLine
    catalogue: CatalogueTerms | None = None


@dataclass(frozen=True, slots=True)
class RemoveOrderItem:
    order_id: str
    product_id: str


@dataclass(frozen=True, slots=True)
class ChangeLineQuantity:
    """Quantity 0 takes the line off."""

    order_id: str
    line_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class ChangeShippingAddress:
    order_id: str
    shipping_address_id: str
    reason: str | None = None
    shipping_address: Address | None = None


@dataclass(frozen=True, slots=True)
class ConfirmPayment:
    order_id: str
    payment_reference: str
    amount: int


@dataclass(frozen=True, slots=True)
class RecordPayment:
    """Captured, or authorised only. `account_id`: captured from that account."""

    order_id: str
    payment_reference: str
    amount: int
    captured: bool = True
    method: str | None = None
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class CapturePayment:
    """Of an authorisation; all that is left of it without an amount."""

    order_id: str
    payment_reference: str
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class VoidPayment:
    order_id: str
    payment_reference: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RefundPayment:
    order_id: str
    refund_id: str
    payment_reference: str
    amount: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShipOrder:
    """All that is left."""

    order_id: str
    tracking_number: str
    carrier: str | None = None


@dataclass(frozen=True, slots=True)
class ShipItems:
    order_id: str
    shipment_id: str
    tracking_number: str
    carrier: str | None
    lines: tuple[LineQuantity, ...]


@dataclass(frozen=True, slots=True)
class ConfirmShipmentDelivery:
    order_id: str
    shipment_id: str


@dataclass(frozen=True, slots=True)
class ConfirmDelivery:
    order_id: str


@dataclass(frozen=True, slots=True)
class RequestReturn:
    order_id: str
    return_id: str
    lines: tuple[LineQuantity, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class ReceiveReturn:
    order_id: str
    return_id: str
    lines: tuple[ReceivedLine, ...]


@dataclass(frozen=True, slots=True)
class HoldOrder:
    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    order_id: str


@dataclass(frozen=True, slots=True)
class ExpireReservation:
    """Of an order that was not confirmed in time."""

    order_id: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    order_id: str
    reason: str


ItemCommand = AddOrderItem | RemoveOrderItem | ChangeLineQuantity | ChangeShippingAddress | ExpireReservation
PaymentCommand = ConfirmPayment | RecordPayment | CapturePayment | VoidPayment | RefundPayment
ShipmentCommand = (
    ShipOrder | ShipItems | ConfirmShipmentDelivery | ConfirmDelivery | HoldOrder | ReleaseHold | CancelOrder
)
ReturnCommand = RequestReturn | ReceiveReturn
OrderCommand = PlaceOrder | ItemCommand | PaymentCommand | ShipmentCommand | ReturnCommand
