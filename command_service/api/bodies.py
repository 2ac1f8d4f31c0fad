"""What clients send and get back. Unknown fields are refused, numbers are not guessed from strings."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictInt,
    StringConstraints,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

from command_service.api.currencies import CURRENCIES
from command_service.api.lines import (
    MAX_QUANTITY,
    MAX_TEXT,
    MAX_UNIT_PRICE,
    NO_CONTROL_CHARACTERS,
    JudgedLines,
    read_at_once,
)
from command_service.domain.order import MAX_LINES, MAX_TOTAL
from shared.aggregates.order import OrderLine
from shared.http.fast_route import FastBody
from shared.http.fields import Id, ProductId, StoredTime

ShortText = Annotated[str, StringConstraints(pattern=NO_CONTROL_CHARACTERS, max_length=100)]
Text = Annotated[str, StringConstraints(pattern=NO_CONTROL_CHARACTERS, max_length=MAX_TEXT)]


def _known_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("should be an ISO 4217 currency code, such as GBP")
    return code


Currency = Annotated[
    str, AfterValidator(_known_currency), Field(pattern=r"^[A-Z]{3}$", json_schema_extra={"enum": sorted(CURRENCIES)})
]
Quantity = Annotated[StrictInt, Field(ge=1, le=MAX_QUANTITY)]
UnitPrice = Annotated[StrictInt, Field(ge=0, le=MAX_UNIT_PRICE, description="minor units (pence, cents)")]


class Body(FastBody):
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


class _AsItems:
    """For pydantic, lines are a list of `OrderItemBody`, unless they were judged before."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        sent = handler.generate_schema(Annotated[list[OrderItemBody], Field(min_length=1, max_length=MAX_LINES)])
        return core_schema.no_info_wrap_validator_function(
            _lines, sent, serialization=core_schema.plain_serializer_function_ser_schema(_as_sent)
        )


def _lines(value: Any, judge: ValidatorFunctionWrapHandler) -> tuple[OrderLine, ...]:
    return tuple(value) if isinstance(value, JudgedLines) else tuple([item.line() for item in judge(value)])


def _as_sent(lines: tuple[OrderLine, ...]) -> list[dict[str, Any]]:
    """In the order of `OrderItemBody`, as in the fingerprints of requests that were kept before."""
    return [
        {
            "product_id": line.product_id,
            "product_name": line.product_name,
            "quantity": line.quantity,
            "unit_price": line.unit_price,
        }
        for line in lines
    ]


class PlaceOrderBody(CommandBody):
    order_id: Id | None = Field(None, description="yours, or we make one", examples=["536365"])
    customer_id: Id = Field(examples=["17850"])
    currency: Currency = Field(examples=["GBP"])
    items: Annotated[tuple[OrderLine, ...], _AsItems]
    shipping_address_id: Id = Field(examples=["address-1"])

    @classmethod
    def read(cls, body: bytes) -> Self:
        fields = read_at_once(body)
        return super().read(body) if fields is None else cls.model_validate(fields)


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
