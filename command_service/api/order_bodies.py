"""Values in the bodies and paths of commands on orders."""

from __future__ import annotations

from typing import Annotated, NotRequired

from fastapi import Path
from pydantic import ConfigDict, Field, StrictInt, StringConstraints, model_validator, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from command_service.api.bodies import Body, ShortText, Text
from command_service.api.commands import ANY_CHANGE
from command_service.domain import order
from command_service.domain.order import MAX_TOTAL, MAX_UNIT_PRICE
from shared.aggregates.order import Charge, ChargeKind, LineQuantity
from shared.http.fields import Id, ProductId
from shared.http.form_errors import format_of
from shared.http.openapi import Described

TOUR = "tour"
ANY_ORDER_CHANGE: tuple[Described, ...] = ((order.OrderNotFound(TOUR), "There is no such order."), *ANY_CHANGE)
LINE_NOT_FOUND: Described = (order.LineNotFound(TOUR, "9"), "The order has no such line.")

Quantity = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
UnitPrice = Annotated[StrictInt, Field(ge=0, le=MAX_UNIT_PRICE, description="minor units (pence, cents)")]
Amount = Annotated[StrictInt, Field(ge=1, le=MAX_TOTAL, description="minor units")]
Sku = Annotated[ShortText, StringConstraints(max_length=64)]
# Of payments that are captured and voided by their path, where a slash would part it.
PaymentReference = Annotated[
    str,
    StringConstraints(
        pattern=format_of(
            r"^[^\x00-\x1f\x7f/]+$",
            "not-a-payment-reference",
            "Give a text of at least one character, without line breaks, tabs and slashes.",
        ),
        max_length=100,
    ),
]
_MetadataName = Annotated[
    str,
    StringConstraints(
        pattern=format_of(
            r"^[A-Za-z0-9._-]{1,40}$",
            "not-a-name",
            "Use up to 40 letters, digits, dots, hyphens and underscores.",
        )
    ),
]
Metadata = Annotated[
    dict[_MetadataName, Text], Field(max_length=20, description="yours, kept as it is", examples=[{"channel": "web"}])
]

_ORDER_ID = "as given or made when the order was placed"
# The examples exist after the tour of the README. Orders are apart where one example would keep another from working.
OrderId = Annotated[Id, Path(description=_ORDER_ID, examples=["536365"])]
OrderPaidAtOnceId = Annotated[Id, Path(description=_ORDER_ID, examples=["536366"])]
OrderPaidInPartId = Annotated[Id, Path(description=_ORDER_ID, examples=["536372"])]
ShippedOrderId = Annotated[Id, Path(description=_ORDER_ID, examples=["tour"])]
UnwantedOrderId = Annotated[Id, Path(description=_ORDER_ID, examples=["536369"])]
LineId = Annotated[Id, Path(description="as the order shows it", examples=["1"])]
Product = Annotated[ProductId, Path(examples=["71053"])]


# A dictionary: an order of a shop has 29 lines on average, and a model of each takes a fifth longer to read.
@with_config(ConfigDict(extra="forbid"))
class OrderItemBody(TypedDict):
    product_id: Annotated[ProductId, Field(examples=["85123A"])]
    product_name: NotRequired[
        Annotated[Text | None, Field(default=None, examples=["WHITE HANGING HEART T-LIGHT HOLDER"])]
    ]
    quantity: Annotated[Quantity, Field(examples=[6])]
    unit_price: Annotated[UnitPrice, Field(examples=[255])]
    line_id: NotRequired[
        Annotated[Id | None, Field(default=None, description="yours; otherwise its number", examples=["line-1"])]
    ]
    sku: NotRequired[Annotated[Sku | None, Field(default=None, examples=["HEART/WHITE"])]]
    metadata: NotRequired[Annotated[Metadata | None, Field(default=None)]]


class ChargeBody(Body):
    charge_id: Id | None = Field(None, description="yours; otherwise its number", examples=["freight"])
    kind: ChargeKind = Field(examples=["shipping"])
    label: ShortText | None = Field(None, examples=["Parcel"])
    amount: Annotated[StrictInt, Field(ge=-MAX_UNIT_PRICE, le=MAX_UNIT_PRICE)] = Field(
        description="minor units; of a discount at most 0, of others at least 0", examples=[495]
    )
    line_id: Id | None = Field(None, description="of one line; otherwise of the order", examples=[None])

    @model_validator(mode="after")
    def _signed_by_kind(self) -> ChargeBody:
        if self.amount and (self.amount < 0) != (self.kind is ChargeKind.DISCOUNT):
            raise PydanticCustomError(
                "wrong-sign", "Give a discount an amount of at most 0, and other charges one of at least 0."
            )
        return self

    def charge(self) -> Charge:
        """Its id is empty where none was given."""
        return Charge(self.charge_id or "", self.kind, self.amount, self.label, self.line_id)


class LineQuantityBody(Body):
    line_id: Id = Field(examples=["1"])
    quantity: Quantity = Field(examples=[1])

    def pieces(self) -> LineQuantity:
        return LineQuantity(self.line_id, self.quantity)
