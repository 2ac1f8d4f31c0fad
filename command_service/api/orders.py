"""The commands on an order and its lines. Each is acknowledged or refused; none returns order data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, FailFast, Field, StrictInt, StringConstraints
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import AddressBody, CommandBody, Currency, ShortText, Text
from command_service.api.commands import STALE, CommandRoute, carry_out, describe
from command_service.api.order_bodies import (
    ANY_ORDER_CHANGE,
    LINE_NOT_FOUND,
    TOUR,
    ChargeBody,
    LineId,
    Metadata,
    OrderId,
    OrderItemBody,
    Product,
    Quantity,
    Sku,
    UnitPrice,
    UnwantedOrderId,
)
from command_service.api.order_texts import (
    ERASED,
    NO_KEYS,
    key_of_customer,
    key_of_order,
    seal_address,
    seal_reason,
)
from command_service.catalogue import read_products
from command_service.domain import order
from command_service.domain.customer import NoPaymentMethod
from command_service.domain.order import MAX_BYTES, MAX_CHARGES, MAX_LINES, MAX_TOTAL
from command_service.domain.product import CatalogueTerms, Price, PriceDiffers, ProductNotFound
from command_service.domain.stock import InsufficientStock, Shortage
from shared.aggregates.order import OrderLine
from shared.aggregates.order.personal_texts import NOTE, REASON
from shared.http.fields import Id, ProductId
from shared.http.openapi import Described
from shared.identity.access import allowed, limited_to_owner
from shared.identity.caller import ForeignOwner, Role
from shared.privacy.sealed import SubjectKey

DESCRIPTION = "PENDING → CONFIRMED (paid or authorised) → SHIPPED → DELIVERED, or CANCELLED."
router = APIRouter(tags=["orders"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------


_PLACE_ORDER_EXAMPLE: dict[str, Any] = {
    "customer_id": "17850",
    "currency": "GBP",
    "items": [
        {
            "product_id": "85123A",
            "product_name": "WHITE HANGING HEART T-LIGHT HOLDER",
            "quantity": 6,
            "unit_price": 255,
        }
    ],
    "shipping_address_id": "address-1",
}


class PlaceOrderBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_PLACE_ORDER_EXAMPLE]})
    order_id: Id | None = Field(None, description="yours, or we make one", examples=["536365"])
    customer_id: Id = Field(examples=["17850"])
    currency: Currency = Field(examples=["GBP"])
    items: Annotated[list[OrderItemBody], FailFast(), Field(min_length=1, max_length=MAX_LINES)]
    shipping_address_id: Id = Field(examples=["address-1"])
    charges: Annotated[list[ChargeBody], FailFast(), Field(max_length=MAX_CHARGES)] = Field(
        default=[],
        description="beside the lines; the total is never below 0",
        examples=[
            [
                {"charge_id": "freight", "kind": "shipping", "label": "Parcel", "amount": 495},
                {"charge_id": "free", "kind": "discount", "label": "FREE SHIPPING", "amount": -495},
            ]
        ],
    )
    shipping_address: AddressBody | None = None
    external_reference: ShortText | None = Field(None, description="what the shop calls it", examples=["web-4711"])
    note: Annotated[Text, StringConstraints(max_length=2_000)] | None = Field(
        None, examples=["Leave it with the neighbours"]
    )
    metadata: Metadata | None = None

    def command(
        self, key: SubjectKey | None, *, customer_must_be_known: bool, catalogue: CatalogueTerms | None
    ) -> order.PlaceOrder:
        """`key` seals its address and note; None where it has neither."""
        address, note = self.shipping_address, self.note
        return order.PlaceOrder(
            self.order_id or str(uuid7()),
            self.customer_id,
            self.currency,
            tuple([OrderLine(**item) for item in self.items]),
            self.shipping_address_id,
            tuple([charge.charge() for charge in self.charges]),
            None if address is None or key is None else seal_address(key, address.address()),
            self.external_reference,
            None if note is None or key is None else key.seal(NOTE, note),
            self.metadata,
            customer_must_be_known,
            catalogue,
        )


class AddOrderItemBody(CommandBody):
    product_id: ProductId = Field(examples=["71053"])
    product_name: Text | None = Field(None, examples=["WHITE METAL LANTERN"])
    quantity: Quantity = Field(examples=[6])
    unit_price: UnitPrice = Field(examples=[255])
    line_id: Id | None = Field(None, description="yours; otherwise a number", examples=["line-2"])
    sku: Sku | None = Field(None, examples=["LANTERN/WHITE"])
    metadata: Metadata | None = None

    def line(self) -> OrderLine:
        return OrderLine(
            self.product_id,
            self.quantity,
            self.unit_price,
            self.product_name,
            self.line_id,
            self.sku,
            self.metadata,
        )


class ChangeLineQuantityBody(CommandBody):
    quantity: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = Field(description="0 takes the line off", examples=[3])


class ChangeShippingAddressBody(CommandBody):
    shipping_address_id: Id = Field(examples=["address-2"])
    reason: Text | None = Field(None, examples=["moved house"])
    shipping_address: AddressBody | None = None


class CancelOrderBody(CommandBody):
    reason: Text = Field(examples=["ordered twice"])


# --- routes --------------------------------------------------------------------------------------------------------

_TOO_MUCH: tuple[Described, ...] = (
    (order.TooManyLines(TOUR, MAX_LINES), "The order would have more than 2,000 lines."),
    (order.OrderTotalTooLarge(TOUR, MAX_TOTAL + 1, MAX_TOTAL, "GBP", 2), "The total would reach 2^53 minor units."),
    (order.OrderTooLarge(TOUR, MAX_BYTES), "The lines and charges would take more than 640 KiB."),
)
_NOT_PENDING: Described = (
    order.OrderNotPending(TOUR, "SHIPPED"),
    "Only a PENDING order can be paid at once or changed.",
)
_NEGATIVE: Described = (
    order.NegativeAmount(TOUR, None, -1, "GBP", 2),
    "A line with its charges, or the order, would cost less than 0.",
)
_NOT_IN_STOCK: Described = (
    InsufficientStock([Shortage("71053", 6, 4)]),
    "Fewer pieces of a tracked product are available; nothing was reserved.",
)
_OF_CATALOGUE: tuple[Described, ...] = (
    (ProductNotFound("71053"), "The product was retired; or the catalogue does not have it, and must."),
    (
        PriceDiffers([Price("71053", 339, "GBP")]),
        "The caller is a customer, and the catalogue's prices are others, or the order has a discount.",
    ),
)
_LINE_ID: Described = (order.DuplicateLineId(TOUR, "1"), "Two lines would have one id.")


@router.post(
    "/orders",
    summary="Place an order",
    **describe(
        (order.OrderAlreadyPlaced(TOUR), "There is an order with this id."),
        (ForeignOwner("customer", "13047"), "The caller is another customer, or there is none and there must be."),
        (NoPaymentMethod("13047"), "The customer has no payment method, and must have one."),
        STALE,
        *_TOO_MUCH,
        _LINE_ID,
        _NEGATIVE,
        (order.TooManyEntries(TOUR, "charges", MAX_CHARGES), "The order would have more than 2,000 charges."),
        (order.DuplicateChargeId(TOUR, "freight"), "Two charges have one id."),
        (order.ChargeOfUnknownLine(TOUR, "9"), "A charge names a line that is not on the order."),
        _NOT_IN_STOCK,
        *_OF_CATALOGUE,
        ERASED,
        NO_KEYS,
        status=201,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def place_order(request: Request, body: PlaceOrderBody) -> Response:
    """Creates an order in status PENDING, and reserves its tracked products, all or nothing. Without `order_id` we make
    one; the acknowledgement names it."""
    key = None
    if body.shipping_address is not None or body.note is not None:
        key = await key_of_customer(request, body.customer_id)
    terms = await _terms_of_catalogue(request, [item["product_id"] for item in body.items])
    command = body.command(key, customer_must_be_known=request.app.state.refuses_unknown_customers, catalogue=terms)
    return await carry_out(request, command, body, created_under="/orders")


@router.post(
    "/orders/{order_id}/items",
    summary="Add a line",
    **describe(*ANY_ORDER_CHANGE, _NOT_PENDING, *_TOO_MUCH, _LINE_ID, _NOT_IN_STOCK, *_OF_CATALOGUE),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def add_order_item(request: Request, order_id: OrderId, body: AddOrderItemBody) -> Response:
    """Adds a line to a PENDING order, and reserves its product if that is tracked. Several lines may have the same
    product."""
    terms = await _terms_of_catalogue(request, [body.product_id])
    return await carry_out(request, order.AddOrderItem(order_id, body.line(), terms), body)


async def _terms_of_catalogue(request: Request, product_ids: Sequence[str]) -> CatalogueTerms | None:
    """A customer orders at its prices. None where it has no say. Raises `LogUnavailable`."""
    state, prices_bind = request.app.state, limited_to_owner(request.scope) is not None
    if not (prices_bind or state.refuses_unknown_products):
        return None
    products = await read_products(state.pool, product_ids)
    return CatalogueTerms(products, state.refuses_unknown_products, prices_bind)


@router.delete(
    "/orders/{order_id}/items/{product_id}",
    summary="Remove a product",
    **describe(
        *ANY_ORDER_CHANGE,
        (order.ItemNotFound(TOUR, "71053"), "The order has no line of this product."),
        _NOT_PENDING,
        (order.OrderNeedsALine(TOUR, "71053"), "An order keeps at least one line."),
        _NEGATIVE,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def remove_order_item(request: Request, order_id: OrderId, product_id: Product) -> Response:
    """Takes every line of the product off a PENDING order, with the charges of these lines."""
    return await carry_out(request, order.RemoveOrderItem(order_id, product_id), None)


@router.put(
    "/orders/{order_id}/lines/{line_id}",
    summary="Change the quantity of a line",
    **describe(
        *ANY_ORDER_CHANGE,
        LINE_NOT_FOUND,
        _NOT_PENDING,
        (order.OrderNeedsALine(TOUR, "71053"), "An order keeps at least one line."),
        (order.OrderTotalTooLarge(TOUR, MAX_TOTAL + 1, MAX_TOTAL, "GBP", 2), "The total would reach 2^53 minor units."),
        _NEGATIVE,
        _NOT_IN_STOCK,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def change_line_quantity(
    request: Request, order_id: OrderId, line_id: LineId, body: ChangeLineQuantityBody
) -> Response:
    """Of a PENDING order. Quantity 0 takes the line off, with its charges; the quantity it has changes nothing."""
    return await carry_out(request, order.ChangeLineQuantity(order_id, line_id, body.quantity), body)


@router.put(
    "/orders/{order_id}/shipping-address",
    summary="Change the shipping address",
    **describe(*ANY_ORDER_CHANGE, _NOT_PENDING, ERASED, NO_KEYS),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def change_shipping_address(request: Request, order_id: OrderId, body: ChangeShippingAddressBody) -> Response:
    """Sends a PENDING order elsewhere. The address it already has changes nothing."""
    command = order.ChangeShippingAddress(order_id, body.shipping_address_id)
    if body.reason is not None or body.shipping_address is not None:
        key = await key_of_order(request, order_id)
        reason = None if body.reason is None else key.seal(REASON, body.reason)
        address = None if body.shipping_address is None else seal_address(key, body.shipping_address.address())
        command = replace(command, reason=reason, shipping_address=address)
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/cancellation",
    summary="Cancel the order",
    **describe(
        *ANY_ORDER_CHANGE,
        (order.OrderNotCancellable(TOUR, "SHIPPED"), "Only a PENDING or CONFIRMED order can be cancelled."),
        (order.OrderPartlyShipped(TOUR, 1), "A part of the order has left."),
        NO_KEYS,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def cancel_order(request: Request, order_id: UnwantedOrderId, body: CancelOrderBody) -> Response:
    """PENDING or CONFIRMED becomes CANCELLED while nothing has left; what was paid is recorded as the refund owed."""
    reason = await seal_reason(request, order_id, body.reason)
    return await carry_out(request, order.CancelOrder(order_id, reason), body)
