"""The eight commands on an order. Each is acknowledged or refused; none returns order data."""

from __future__ import annotations

from typing import Annotated, NotRequired

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, FailFast, Field, StrictInt, StringConstraints, with_config
from starlette.responses import Response
from typing_extensions import TypedDict
from uuid_utils import uuid7

from command_service.api.bodies import CommandBody, Currency, ShortText, Text
from command_service.api.commands import ANY_CHANGE, STALE, CommandRoute, carry_out, describe
from command_service.domain import order
from command_service.domain.order import MAX_BYTES, MAX_LINES, MAX_TOTAL, MAX_UNIT_PRICE
from shared.aggregates.order import OrderLine
from shared.http.fields import Id
from shared.http.form_errors import format_of
from shared.http.openapi import Described
from shared.identity.access import allowed
from shared.identity.caller import ForeignOwner, Role

DESCRIPTION = "PENDING → CONFIRMED (paid) → SHIPPED → DELIVERED, or CANCELLED."
router = APIRouter(tags=["orders"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------

PRODUCT_ID_PATTERN = format_of(
    r"^(?:[A-Za-z0-9._-][A-Za-z0-9._ -]*)?[A-Za-z0-9_-](?:[A-Za-z0-9._ -]*[A-Za-z0-9._-])?$",
    "not-a-product-id",
    "Use letters A to Z, digits, dots, underscores, hyphens and, inside, spaces; not dots alone.",
)
ProductId = Annotated[str, StringConstraints(pattern=PRODUCT_ID_PATTERN, min_length=1, max_length=64)]
Quantity = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
UnitPrice = Annotated[StrictInt, Field(ge=0, le=MAX_UNIT_PRICE, description="minor units (pence, cents)")]


# A dictionary: an order of a shop has 29 lines on average, and a model of each takes a fifth longer to read.
@with_config(ConfigDict(extra="forbid"))
class OrderItemBody(TypedDict):
    product_id: Annotated[ProductId, Field(examples=["85123A"])]
    product_name: NotRequired[
        Annotated[Text | None, Field(default=None, examples=["WHITE HANGING HEART T-LIGHT HOLDER"])]
    ]
    quantity: Annotated[Quantity, Field(examples=[6])]
    unit_price: Annotated[UnitPrice, Field(examples=[255])]


class PlaceOrderBody(CommandBody):
    order_id: Id | None = Field(None, description="yours, or we make one", examples=["536365"])
    customer_id: Id = Field(examples=["17850"])
    currency: Currency = Field(examples=["GBP"])
    items: Annotated[list[OrderItemBody], FailFast(), Field(min_length=1, max_length=MAX_LINES)]
    shipping_address_id: Id = Field(examples=["address-1"])

    def lines(self) -> tuple[OrderLine, ...]:
        return tuple([OrderLine(**item) for item in self.items])


class AddOrderItemBody(CommandBody):
    product_id: ProductId = Field(examples=["71053"])
    product_name: Text | None = Field(None, examples=["WHITE METAL LANTERN"])
    quantity: Quantity = Field(examples=[6])
    unit_price: UnitPrice = Field(examples=[255])

    def line(self) -> OrderLine:
        return OrderLine(self.product_id, self.quantity, self.unit_price, self.product_name)


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


_DELIVERED_NOW = ConfirmDeliveryBody(occurred_at=None)


class CancelOrderBody(CommandBody):
    reason: Text = Field(examples=["ordered twice"])


# --- routes --------------------------------------------------------------------------------------------------------

OrderId = Annotated[Id, Path(description="as given or made when the order was placed", examples=["536365"])]
Product = Annotated[ProductId, Path(examples=["71053"])]

_TOUR = "tour"
_ANY_CHANGE: tuple[Described, ...] = ((order.OrderNotFound(_TOUR), "There is no such order."), *ANY_CHANGE)
_TOO_MUCH: tuple[Described, ...] = (
    (order.TooManyLines(_TOUR, MAX_LINES), "The order would have more than 2,000 lines."),
    (order.OrderTotalTooLarge(_TOUR, MAX_TOTAL + 1, MAX_TOTAL, "GBP", 2), "The total would reach 2^53 minor units."),
    (order.OrderTooLarge(_TOUR, MAX_BYTES), "The lines would take more than 640 KiB."),
)
_NOT_PENDING: Described = (order.OrderNotPending(_TOUR, "SHIPPED"), "Only a PENDING order can be paid or changed.")


@router.post(
    "/orders",
    summary="Place an order",
    **describe(
        (order.OrderAlreadyPlaced(_TOUR), "There is an order with this id."),
        (ForeignOwner("customer", "13047"), "The caller is another customer."),
        STALE,
        *_TOO_MUCH,
        status=201,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def place_order(request: Request, body: PlaceOrderBody) -> Response:
    """Creates an order in status PENDING. Without `order_id` we make one; the acknowledgement names it."""
    command = order.PlaceOrder(
        body.order_id or str(uuid7()),
        body.customer_id,
        body.currency,
        body.lines(),
        body.shipping_address_id,
    )
    return await carry_out(request, command, body, created_under="/orders")


@router.post(
    "/orders/{order_id}/items",
    summary="Add a line",
    **describe(*_ANY_CHANGE, _NOT_PENDING, *_TOO_MUCH),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def add_order_item(request: Request, order_id: OrderId, body: AddOrderItemBody) -> Response:
    """Adds a line to a PENDING order. Several lines may have the same product."""
    return await carry_out(request, order.AddOrderItem(order_id, body.line()), body)


@router.delete(
    "/orders/{order_id}/items/{product_id}",
    summary="Remove a product",
    **describe(
        *_ANY_CHANGE,
        (order.ItemNotFound(_TOUR, "71053"), "The order has no line of this product."),
        _NOT_PENDING,
        (order.OrderNeedsALine(_TOUR, "71053"), "An order keeps at least one line."),
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def remove_order_item(request: Request, order_id: OrderId, product_id: Product) -> Response:
    """Takes every line of the product off a PENDING order."""
    return await carry_out(request, order.RemoveOrderItem(order_id, product_id), None)


@router.put(
    "/orders/{order_id}/shipping-address",
    summary="Change the shipping address",
    **describe(*_ANY_CHANGE, _NOT_PENDING),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def change_shipping_address(request: Request, order_id: OrderId, body: ChangeShippingAddressBody) -> Response:
    """Sends a PENDING order elsewhere. The address it already has changes nothing."""
    command = order.ChangeShippingAddress(order_id, body.shipping_address_id, body.reason)
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/payment",
    summary="Confirm the payment",
    **describe(
        *_ANY_CHANGE,
        _NOT_PENDING,
        (order.PaymentAmountMismatch(_TOUR, 1_869, 1_000, "GBP", 2), "The amount does not equal the order's total."),
    ),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def confirm_payment(request: Request, order_id: OrderId, body: ConfirmPaymentBody) -> Response:
    """PENDING becomes CONFIRMED. The same payment again changes nothing."""
    command = order.ConfirmPayment(order_id, body.payment_reference, body.amount)
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/shipment",
    summary="Ship the order",
    **describe(*_ANY_CHANGE, (order.OrderNotConfirmed(_TOUR, "PENDING"), "Only a CONFIRMED order can be shipped.")),
)
@allowed(Role.STAFF, Role.SERVICE)
async def ship_order(request: Request, order_id: OrderId, body: ShipOrderBody) -> Response:
    """CONFIRMED becomes SHIPPED. The same shipment again changes nothing."""
    return await carry_out(request, order.ShipOrder(order_id, body.tracking_number, body.carrier), body)


@router.post(
    "/orders/{order_id}/delivery",
    summary="Confirm the delivery",
    **describe(*_ANY_CHANGE, (order.OrderNotShipped(_TOUR, "PENDING"), "Only a SHIPPED order can be delivered.")),
)
@allowed(Role.STAFF, Role.SERVICE)
async def confirm_delivery(request: Request, order_id: OrderId, body: ConfirmDeliveryBody = _DELIVERED_NOW) -> Response:
    """SHIPPED becomes DELIVERED. A second confirmation changes nothing. The body may be left out."""
    return await carry_out(request, order.ConfirmDelivery(order_id), body)


@router.post(
    "/orders/{order_id}/cancellation",
    summary="Cancel the order",
    **describe(
        *_ANY_CHANGE,
        (order.OrderNotCancellable(_TOUR, "SHIPPED"), "Only a PENDING or CONFIRMED order can be cancelled."),
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def cancel_order(request: Request, order_id: OrderId, body: CancelOrderBody) -> Response:
    """PENDING or CONFIRMED becomes CANCELLED; what was paid is recorded as the refund owed."""
    return await carry_out(request, order.CancelOrder(order_id, body.reason), body)
