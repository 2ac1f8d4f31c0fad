"""What queries show of an order. Pure; `document_fold.py` has how events change it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from shared.aggregates.address import Address
from shared.aggregates.order.events import (
    Charge,
    ChargeKind,
    LineQuantity,
    Metadata,
    OrderLine,
    PaymentAuthorised,
    PaymentConfirmed,
    PaymentReceived,
)
from shared.aggregates.order.state import OrderStatus


class PaymentStatus(StrEnum):
    UNPAID = "unpaid"
    AUTHORISED = "authorised"
    PARTLY_PAID = "partly_paid"
    PAID = "paid"
    REFUND_DUE = "refund_due"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"


class FulfilmentStatus(StrEnum):
    UNFULFILLED = "unfulfilled"
    PARTLY_SHIPPED = "partly_shipped"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    PARTLY_RETURNED = "partly_returned"
    RETURNED = "returned"


class OrderItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    line_id: str
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int
    line_total: int
    charged_amount: int | None = None  # where the order has charges
    sku: str | None = None
    metadata: Metadata | None = None

    @classmethod
    def of(cls, line_id: str, line: OrderLine) -> OrderItem:
        quantity, price = line.quantity, line.unit_price
        return cls(
            line_id,
            line.product_id,
            line.product_name,
            quantity,
            price,
            quantity * price,
            None,
            line.sku,
            line.metadata,
        )


class OrderCharge(msgspec.Struct, frozen=True, gc=False):
    charge_id: str
    kind: ChargeKind
    label: str | None
    amount: int
    line_id: str | None
    charged_amount: int

    @classmethod
    def of(cls, charge: Charge | OrderCharge, charged_amount: int) -> OrderCharge:
        return cls(charge.charge_id, charge.kind, charge.label, charge.amount, charge.line_id, charged_amount)


class OrderPayment(msgspec.Struct, frozen=True, gc=False):
    payment_reference: str
    method: str | None
    account_id: str | None
    amount: int
    amount_captured: int
    amount_voided: int
    amount_refunded: int
    authorised_at: datetime | None
    captured_at: datetime | None  # of the last capture
    voided_at: datetime | None

    @classmethod
    def of(cls, event: PaymentConfirmed | PaymentReceived | PaymentAuthorised, at: datetime) -> OrderPayment:
        if type(event) is PaymentAuthorised:
            return cls(event.payment_reference, event.method, None, event.amount, 0, 0, 0, at, None, None)
        method, account_id = (event.method, event.account_id) if type(event) is PaymentReceived else (None, None)
        amount = event.amount
        return cls(event.payment_reference, method, account_id, amount, amount, 0, 0, None, at, None)

    @property
    def open(self) -> int:
        """What can still be captured."""
        return 0 if self.authorised_at is None else self.amount - self.amount_captured - self.amount_voided


class OrderRefund(msgspec.Struct, frozen=True, gc=False):
    refund_id: str
    payment_reference: str
    amount: int
    reason: str
    refunded_at: datetime


class OrderShipment(msgspec.Struct, frozen=True, gc=False):
    shipment_id: str
    tracking_number: str
    carrier: str | None
    lines: tuple[LineQuantity, ...]
    shipped_at: datetime
    delivered_at: datetime | None


class ReturnedLine(msgspec.Struct, frozen=True, gc=False):
    line_id: str
    quantity: int
    restocked: int
    written_off: int


class OrderReturn(msgspec.Struct, frozen=True, gc=False):
    return_id: str
    reason: str
    lines: tuple[ReturnedLine, ...]
    requested_at: datetime
    received_at: datetime | None  # of the last receipt


class Cancellation(msgspec.Struct, frozen=True, gc=False):
    reason: str
    at: datetime


class OrderDocument(msgspec.Struct, frozen=True, gc=False):
    """What `GET /orders/{order_id}` answers, field by field. Amounts are in minor units of the currency, of which there
    are 10 to the power of `currency_exponent` in its unit.

    amount_paid - amount_refunded = amount_payable - amount_due + refund_due, of which one is 0.
    """

    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str
    currency_exponent: int
    total_amount: int  # lines and charges
    item_count: int  # lines, not pieces
    items: tuple[OrderItem, ...]
    charges: tuple[OrderCharge, ...]
    shipping_address_id: str
    shipping_address: Address | None
    tracking_number: str | None  # of the last shipment
    payment_status: PaymentStatus
    fulfilment_status: FulfilmentStatus
    on_hold: bool
    hold_reason: str | None
    amount_payable: int  # the total without what was returned or reduced; 0 of a cancelled order
    amount_authorised: int  # that can still be captured
    amount_paid: int
    amount_refunded: int
    amount_due: int
    refund_due: int
    payments: tuple[OrderPayment, ...]
    refunds: tuple[OrderRefund, ...]
    shipments: tuple[OrderShipment, ...]
    returns: tuple[OrderReturn, ...]
    cancellation: Cancellation | None
    external_reference: str | None
    note: str | None
    metadata: Metadata | None
    placed_at: datetime
    confirmed_at: datetime | None
    shipped_at: datetime | None
    delivered_at: datetime | None
    last_event_at: datetime
    version: int
