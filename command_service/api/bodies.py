"""What clients send and get back. Unknown fields are refused, numbers are not guessed from strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from command_service.api.currencies import CURRENCIES
from command_service.domain.order import MAX_LINES, MAX_TOTAL
from shared.events.order import OrderLine
from shared.fields import Id, ProductId, StoredTime

_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"
ShortText = Annotated[str, StringConstraints(pattern=_NO_CONTROL_CHARACTERS, max_length=100)]
Text = Annotated[str, StringConstraints(pattern=_NO_CONTROL_CHARACTERS, max_length=500)]


def _known_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("should be an ISO 4217 currency code, such as GBP")
    return code


Currency = Annotated[
    str, AfterValidator(_known_currency), Field(pattern=r"^[A-Z]{3}$", json_schema_extra={"enum": sorted(CURRENCIES)})
]
Quantity = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
UnitPrice = Annotated[StrictInt, Field(ge=0, le=1_000_000_000, description="minor units (pence, cents)")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CommandBody(Body):
    occurred_at: StoredTime | None = Field(
        None, description="business time, RFC 3339; default now", examples=["2026-01-31T14:30:00Z"]
    )


class OrderItemBody(Body):
    product_id: ProductId = Field(examples=["85123A"])
    product_name: Text | None = Field(None, examples=["WHITE HANGING HEART T-LIGHT HOLDER"])
    quantity: Quantity = Field(examples=[6])
    unit_price: UnitPrice = Field(examples=[255])

    def line(self) -> OrderLine:
        return OrderLine(self.product_id, self.quantity, self.unit_price, self.product_name)


class PlaceOrderBody(CommandBody):
    order_id: Id | None = Field(None, description="yours, or we make one", examples=["536365"])
    customer_id: Id = Field(examples=["17850"])
    currency: Currency = Field(examples=["GBP"])
    items: Annotated[list[OrderItemBody], Field(min_length=1, max_length=MAX_LINES)]
    shipping_address_id: Id = Field(examples=["address-1"])


class AddOrderItemBody(CommandBody, OrderItemBody):
    product_id: ProductId = Field(examples=["71053"])
    product_name: Text | None = Field(None, examples=["WHITE METAL LANTERN"])


class ChangeShippingAddressBody(CommandBody):
    shipping_address_id: Id = Field(examples=["address-2"])
    reason: Text | None = Field(None, examples=["moved house"])


class ConfirmPaymentBody(CommandBody):
    payment_reference: ShortText = Field(examples=["pay-20260131-7"])
    amount: Annotated[StrictInt, Field(ge=0, le=MAX_TOTAL, description="minor units")] = Field(examples=[1530])


class ShipOrderBody(CommandBody):
    tracking_number: ShortText = Field(examples=["RM123456789GB"])
    carrier: ShortText | None = Field(None, examples=["Royal Mail"])


class ConfirmDeliveryBody(CommandBody):
    pass


class CancelOrderBody(CommandBody):
    reason: Text = Field(examples=["ordered twice"])


class Acknowledgement(BaseModel):
    """The command was carried out and is durable. Order data comes from the query service."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "command_id": "019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10",
                "aggregate_id": "536365",
                "version": 1,
                "position": 1042,
                "consistency_token": "5f0c6f5e0d3c4e0fb7a1d0f8f2d0a9c4-1042",
            }
        }
    )

    command_id: str = Field(description="this command, as in the metadata of its events")
    aggregate_id: str = Field(description="the order")
    version: int = Field(description="of the order, after this command")
    position: int = Field(description="of the order's last event in the log")
    consistency_token: str = Field(description="hand it to a query to read your own write")
