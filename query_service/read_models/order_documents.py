"""Documents of orders, as OpenAPI shows them: the routes answer the bytes that the projector rendered."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.aggregates.order import ChargeKind, FulfilmentStatus, OrderStatus, PaymentStatus

_SUMMARY_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
    "customer_id": "17850",
    "status": "PENDING",
    "currency": "GBP",
    "currency_exponent": 2,
    "total_amount": 3_764,
    "item_count": 2,
    "placed_at": "2010-12-01T08:26:00Z",
    "last_event_at": "2010-12-01T08:26:00Z",
    "version": 1,
}
_ORDER_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
    "customer_id": "17850",
    "status": "SHIPPED",
    "currency": "GBP",
    "currency_exponent": 2,
    "total_amount": 3_764,
    "item_count": 2,
    "items": [
        {
            "line_id": "1",
            "product_id": "85123A",
            "product_name": "WHITE HANGING HEART T-LIGHT HOLDER",
            "quantity": 6,
            "unit_price": 255,
            "line_total": 1_530,
            "charged_amount": 1_401,
        },
        {
            "line_id": "2",
            "product_id": "71053",
            "product_name": None,
            "quantity": 6,
            "unit_price": 339,
            "line_total": 2_034,
            "charged_amount": 1_863,
            "sku": "LANTERN/WHITE",
        },
    ],
    "charges": [
        {
            "charge_id": "1",
            "kind": "shipping",
            "label": "Parcel",
            "amount": 500,
            "line_id": None,
            "charged_amount": 500,
        },
        {
            "charge_id": "2",
            "kind": "discount",
            "label": "WELCOME",
            "amount": -300,
            "line_id": None,
            "charged_amount": 0,
        },
    ],
    "shipping_address_id": "united-kingdom",
    "shipping_address": {
        "name": "A. Lovelace",
        "lines": ["12 St James's Square"],
        "city": "London",
        "country": "GB",
        "postal_code": "SW1Y 4JH",
    },
    "tracking_number": "RM123456789GB",
    "payment_status": "partly_refunded",
    "fulfilment_status": "partly_returned",
    "on_hold": False,
    "hold_reason": None,
    "amount_payable": 3_531,
    "amount_authorised": 0,
    "amount_paid": 3_764,
    "amount_refunded": 233,
    "amount_due": 0,
    "refund_due": 0,
    "payments": [
        {
            "payment_reference": "pay-20101201-7",
            "method": "card",
            "account_id": None,
            "amount": 3_764,
            "amount_captured": 3_764,
            "amount_voided": 0,
            "amount_refunded": 233,
            "authorised_at": None,
            "captured_at": "2010-12-01T08:27:00Z",
            "voided_at": None,
        }
    ],
    "refunds": [
        {
            "refund_id": "refund-1",
            "payment_reference": "pay-20101201-7",
            "amount": 233,
            "reason": "one came back",
            "refunded_at": "2010-12-08T09:30:00Z",
        }
    ],
    "shipments": [
        {
            "shipment_id": "1",
            "tracking_number": "RM123456789GB",
            "carrier": "Royal Mail",
            "lines": [{"line_id": "1", "quantity": 6}, {"line_id": "2", "quantity": 6}],
            "shipped_at": "2010-12-01T16:02:00Z",
            "delivered_at": None,
        }
    ],
    "returns": [
        {
            "return_id": "return-1",
            "reason": "one too many",
            "lines": [{"line_id": "1", "quantity": 1, "restocked": 1, "written_off": 0}],
            "requested_at": "2010-12-06T10:15:00Z",
            "received_at": "2010-12-08T09:20:00Z",
        }
    ],
    "cancellation": None,
    "external_reference": "web-4711",
    "note": "Leave it with the neighbours",
    "metadata": {"channel": "web"},
    "placed_at": "2010-12-01T08:26:00Z",
    "confirmed_at": "2010-12-01T08:27:00Z",
    "shipped_at": "2010-12-01T16:02:00Z",
    "delivered_at": None,
    "last_event_at": "2010-12-08T09:30:00Z",
    "version": 7,
}


GONE = "null once the customer is erased, too"


class Item(BaseModel):
    line_id: str
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int = Field(description="in minor units")
    line_total: int = Field(description="quantity times price, in minor units")
    charged_amount: int | None = Field(
        None,
        description="with the line's charges and its share of the order's discounts, in minor units; left out where the"
        " order has no charges, and it is the line_total",
    )
    sku: str | None = Field(None, description="left out where none was given")
    metadata: dict[str, str] | None = Field(None, description="left out where none was given")


class Charge(BaseModel):
    charge_id: str
    kind: ChargeKind
    label: str | None
    amount: int = Field(description="in minor units; a discount is negative")
    line_id: str | None = Field(description="of one line; null: of the order")
    charged_amount: int = Field(
        description="in minor units; 0 of a discount and of a charge of one line, which are part of lines. Those of all"
        " lines and charges sum to the order's total"
    )


class OrderSummary(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _SUMMARY_EXAMPLE})
    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str = Field(description="ISO 4217")
    currency_exponent: int = Field(description="decimal digits of the minor unit: JPY 0, GBP 2, KWD 3")
    total_amount: int = Field(description="in minor units")
    item_count: int = Field(description="number of lines")
    placed_at: AwareDatetime
    last_event_at: AwareDatetime = Field(description="business time of the last event")
    version: int = Field(description="number of events so far")


class Address(BaseModel):
    """Fields without a value are left out."""

    name: str
    lines: list[str]
    city: str
    country: str = Field(description="ISO 3166, two letters")
    region: str | None = None
    postal_code: str | None = None
    phone: str | None = None


class Payment(BaseModel):
    payment_reference: str
    method: str | None
    account_id: str | None
    amount: int = Field(description="in minor units: what was authorised, or captured at once")
    amount_captured: int
    amount_voided: int
    amount_refunded: int
    authorised_at: AwareDatetime | None
    captured_at: AwareDatetime | None = Field(description="of the last capture")
    voided_at: AwareDatetime | None


class Refund(BaseModel):
    refund_id: str
    payment_reference: str
    amount: int = Field(description="in minor units")
    reason: str | None = Field(description=GONE)
    refunded_at: AwareDatetime


class LineQuantity(BaseModel):
    line_id: str
    quantity: int


class Shipment(BaseModel):
    shipment_id: str
    tracking_number: str
    carrier: str | None
    lines: list[LineQuantity]
    shipped_at: AwareDatetime
    delivered_at: AwareDatetime | None


class ReturnedLine(LineQuantity):
    restocked: int = Field(description="pieces that came back and are sold again")
    written_off: int = Field(description="pieces that came back and are not sold again")


class Return(BaseModel):
    return_id: str
    reason: str | None = Field(description=GONE)
    lines: list[ReturnedLine]
    requested_at: AwareDatetime
    received_at: AwareDatetime | None = Field(description="of the last receipt")


class Cancellation(BaseModel):
    reason: str | None = Field(description=GONE)
    at: AwareDatetime


class OrderCustomer(BaseModel):
    name: str
    email: str


class Order(OrderSummary):
    """Times are business times, amounts in minor units."""

    model_config = ConfigDict(json_schema_extra={"example": _ORDER_EXAMPLE})
    items: list[Item]
    charges: list[Charge]
    shipping_address_id: str
    shipping_address: Address | None = Field(description=GONE)
    tracking_number: str | None = Field(description="of the last shipment")
    payment_status: PaymentStatus
    fulfilment_status: FulfilmentStatus
    on_hold: bool
    hold_reason: str | None = Field(description=GONE)
    amount_payable: int = Field(
        description="what the order costs: the total without what came back and what was refunded beyond what was owed;"
        " 0 of a cancelled order"
    )
    amount_authorised: int = Field(description="that can still be captured")
    amount_paid: int = Field(
        description="captured; amount_paid - amount_refunded = amount_payable - amount_due + refund_due"
    )
    amount_refunded: int
    amount_due: int = Field(description="what is still to be paid")
    refund_due: int = Field(description="what is owed to the customer")
    payments: list[Payment]
    refunds: list[Refund]
    shipments: list[Shipment]
    returns: list[Return]
    cancellation: Cancellation | None
    external_reference: str | None
    note: str | None = Field(description=GONE)
    metadata: dict[str, str] | None
    confirmed_at: AwareDatetime | None
    shipped_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    customer: OrderCustomer | None = Field(
        None, description="with `include=customer` alone: null where there is no such customer, or it was erased"
    )


class OrderPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"orders": [_SUMMARY_EXAMPLE], "next_cursor": None}})
    orders: list[OrderSummary]
    next_cursor: str | None = Field(description="send it back as `cursor`; null on the last page")


class Orders(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"orders": [_ORDER_EXAMPLE]}})
    orders: list[Order]
