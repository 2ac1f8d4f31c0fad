"""The eight commands on an order. Each is acknowledged or refused; none returns order data."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import (
    Acknowledgement,
    AddOrderItemBody,
    CancelOrderBody,
    ChangeShippingAddressBody,
    CommandBody,
    ConfirmDeliveryBody,
    ConfirmPaymentBody,
    PlaceOrderBody,
    ShipOrderBody,
)
from command_service.api.envelope import (
    COMMAND_HEADERS,
    IF_MATCH,
    IF_MATCH_NEW,
    CommandRoute,
    acknowledge,
    envelope,
)
from command_service.appender import AppendOutcomeUnknown
from command_service.domain import order
from command_service.handler import Handler
from shared.http.fields import Id, ProductId
from shared.http.problems import UNREADABLE, responses

router = APIRouter(tags=["orders"], route_class=CommandRoute)

OrderId = Annotated[Id, Path(description="as given or made when the order was placed", examples=["536365"])]
Product = Annotated[ProductId, Path(examples=["71053"])]

_ANY_COMMAND = (
    (400, "malformed-json", "The body is not JSON."),
    (400, "malformed-header", "A header cannot be read."),
    (413, "body-too-large", "The body is larger than 1 MiB."),
    (415, "unsupported-media-type", "The body is not application/json."),
    (422, "invalid-request", "A value is missing, unknown or out of bounds; `errors` points at it."),
    (422, "idempotency-key-reused", "The Idempotency-Key came with another request before."),
    (422, "occurred-in-the-future", "occurred_at is more than a minute ahead of us."),
    (503, "overloaded", "Too many commands are waiting; nothing was done."),
    (503, "log-unavailable", "The event log cannot be reached; nothing was done."),
    (503, "throttled", "A read model is more than 30 s behind, so only a share is admitted; nothing was done."),
    (503, "shutting-down", "The process is stopping; nothing was done."),
    (504, "outcome-unknown", "The log, or this process, was lost on the way. Repeat with the same Idempotency-Key."),
    *UNREADABLE,
)
_STALE = (412, "stale-version", "The order is not at the version in If-Match.")
_ANY_CHANGE = (
    (404, "order-not-found", "There is no such order."),
    (409, "version-conflict", "Others kept changing the order; try again."),
    (409, "occurred-before-previous-event", "occurred_at lies before the order's previous event."),
    _STALE,
)
_TOO_MUCH = (
    (422, "too-many-lines", "The order would have more than 2,000 lines."),
    (422, "order-total-too-large", "The total would reach 2^53 minor units."),
)
_NOT_PENDING = (409, "order-not-pending", "Only a PENDING order can be paid or changed.")

_ACKNOWLEDGED_HEADERS = {
    "ETag": {"schema": {"type": "string"}, "description": "the order's version, quoted"},
    "Consistency-Token": {"schema": {"type": "string"}, "description": "hand it to a query"},
    "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true` when the key had been seen"},
}


def _describe(*refusals: tuple[int, str, str], status: int = 200) -> dict[str, Any]:
    headers: dict[str, Any] = dict(_ACKNOWLEDGED_HEADERS)
    if status == 201:
        headers["Location"] = {"schema": {"type": "string"}, "description": "the order, at the query service"}
    acknowledged = {"description": "Carried out and durable", "headers": headers}
    return {
        "status_code": status,
        "response_model": Acknowledgement,
        "responses": {status: acknowledged, **responses(*refusals, *_ANY_COMMAND)},
        "openapi_extra": {"parameters": [*COMMAND_HEADERS, IF_MATCH_NEW if status == 201 else IF_MATCH]},
    }


async def _handle(request: Request, command: order.OrderCommand, body: CommandBody | None) -> Response:
    state = request.app.state
    if state.throttle.active:
        state.throttle.admit()
    handler: Handler = state.handler
    created = isinstance(command, order.PlaceOrder)
    given = envelope(request, body, creates=created)
    try:
        verdict = await handler.handle(command, given)
    except asyncio.CancelledError:  # by the server, when the time to finish what it accepted is over
        raise AppendOutcomeUnknown(str(given.command_id)) from None
    return acknowledge(verdict, created=created)


@router.post(
    "/orders",
    summary="Place an order",
    **_describe((409, "order-already-placed", "There is an order with this id."), _STALE, *_TOO_MUCH, status=201),
)
async def place_order(request: Request, body: PlaceOrderBody) -> Response:
    """Creates an order in status PENDING. Without `order_id` we make one; the acknowledgement names it."""
    command = order.PlaceOrder(
        body.order_id or str(uuid7()),
        body.customer_id,
        body.currency,
        body.items,
        body.shipping_address_id,
    )
    return await _handle(request, command, body)


@router.post(
    "/orders/{order_id}/items",
    summary="Add a line",
    **_describe(*_ANY_CHANGE, _NOT_PENDING, *_TOO_MUCH),
)
async def add_order_item(request: Request, order_id: OrderId, body: AddOrderItemBody) -> Response:
    """Adds a line to a PENDING order. A product may stand on several lines."""
    return await _handle(request, order.AddOrderItem(order_id, body.line()), body)


@router.delete(
    "/orders/{order_id}/items/{product_id}",
    summary="Remove a product",
    **_describe(
        *_ANY_CHANGE,
        (404, "item-not-found", "The order has no line of this product."),
        _NOT_PENDING,
        (409, "order-needs-a-line", "An order keeps at least one line."),
    ),
)
async def remove_order_item(request: Request, order_id: OrderId, product_id: Product) -> Response:
    """Takes every line of the product off a PENDING order."""
    return await _handle(request, order.RemoveOrderItem(order_id, product_id), None)


@router.put(
    "/orders/{order_id}/shipping-address",
    summary="Change the shipping address",
    **_describe(*_ANY_CHANGE, _NOT_PENDING),
)
async def change_shipping_address(request: Request, order_id: OrderId, body: ChangeShippingAddressBody) -> Response:
    """Sends a PENDING order elsewhere. The address it already has changes nothing."""
    command = order.ChangeShippingAddress(order_id, body.shipping_address_id, body.reason)
    return await _handle(request, command, body)


@router.post(
    "/orders/{order_id}/payment",
    summary="Confirm the payment",
    **_describe(
        *_ANY_CHANGE, _NOT_PENDING, (409, "payment-amount-mismatch", "The amount does not equal the order's total.")
    ),
)
async def confirm_payment(request: Request, order_id: OrderId, body: ConfirmPaymentBody) -> Response:
    """PENDING becomes CONFIRMED. The same payment again changes nothing."""
    command = order.ConfirmPayment(order_id, body.payment_reference, body.amount)
    return await _handle(request, command, body)


@router.post(
    "/orders/{order_id}/shipment",
    summary="Ship the order",
    **_describe(*_ANY_CHANGE, (409, "order-not-confirmed", "Only a CONFIRMED order can be shipped.")),
)
async def ship_order(request: Request, order_id: OrderId, body: ShipOrderBody) -> Response:
    """CONFIRMED becomes SHIPPED. The same shipment again changes nothing."""
    return await _handle(request, order.ShipOrder(order_id, body.tracking_number, body.carrier), body)


@router.post(
    "/orders/{order_id}/delivery",
    summary="Confirm the delivery",
    **_describe(*_ANY_CHANGE, (409, "order-not-shipped", "Only a SHIPPED order can be delivered.")),
)
async def confirm_delivery(request: Request, order_id: OrderId, body: ConfirmDeliveryBody) -> Response:
    """SHIPPED becomes DELIVERED. A second confirmation changes nothing."""
    return await _handle(request, order.ConfirmDelivery(order_id), body)


@router.post(
    "/orders/{order_id}/cancellation",
    summary="Cancel the order",
    **_describe(*_ANY_CHANGE, (409, "order-not-cancellable", "Only a PENDING or CONFIRMED order can be cancelled.")),
)
async def cancel_order(request: Request, order_id: OrderId, body: CancelOrderBody) -> Response:
    """PENDING or CONFIRMED becomes CANCELLED; what was paid is recorded as the refund owed."""
    return await _handle(request, order.CancelOrder(order_id, body.reason), body)
