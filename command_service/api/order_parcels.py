"""The commands on what leaves and comes back: shipments, deliveries, returns and holds."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import Body, CommandBody, ShortText, Text
from command_service.api.commands import CommandRoute, carry_out, describe
from command_service.api.order_bodies import (
    ANY_ORDER_CHANGE,
    LINE_NOT_FOUND,
    TOUR,
    LineQuantityBody,
    OrderId,
    OrderPaidAtOnceId,
    Quantity,
    ShippedOrderId,
)
from command_service.api.order_texts import NO_KEYS, seal_reason
from command_service.domain import order
from command_service.domain.order import MAX_LINES, MAX_PARCEL_LINES, MAX_RETURNS, MAX_SHIPMENTS
from command_service.domain.stock import InsufficientStock, Shortage
from shared.aggregates.order import ReceivedLine
from shared.http.fields import Id
from shared.http.openapi import Described
from shared.identity.access import allowed
from shared.identity.caller import Role

DESCRIPTION = "What leaves and what comes back, by line and quantity."
router = APIRouter(tags=["shipments and returns"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------


class ShipOrderBody(CommandBody):
    tracking_number: ShortText = Field(examples=["RM123456789GB"])
    carrier: ShortText | None = Field(None, examples=["Royal Mail"])


# The examples of the commands that follow name these.
_PARCEL, _RETURN = "parcel-1", "return-1"
_SHIP_ITEMS_EXAMPLE: dict[str, Any] = {
    "shipment_id": _PARCEL,
    "tracking_number": "RM123456790GB",
    "lines": [{"line_id": "1", "quantity": 1}],
}
_REQUEST_RETURN_EXAMPLE: dict[str, Any] = {
    "return_id": _RETURN,
    "lines": [{"line_id": "1", "quantity": 1}],
    "reason": "one too many",
}


class ShipItemsBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_SHIP_ITEMS_EXAMPLE]})
    shipment_id: Id | None = Field(None, description="yours, or we make one", examples=[_PARCEL])
    tracking_number: ShortText = Field(examples=["RM123456790GB"])
    carrier: ShortText | None = Field(None, examples=["Royal Mail"])
    lines: list[LineQuantityBody] = Field(min_length=1, max_length=MAX_LINES)


class ConfirmDeliveryBody(CommandBody):
    pass


class RequestReturnBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST_RETURN_EXAMPLE]})
    return_id: Id | None = Field(None, description="yours, or we make one", examples=[_RETURN])
    lines: list[LineQuantityBody] = Field(min_length=1, max_length=MAX_LINES)
    reason: Text = Field(examples=["one too many"])


class ReceivedLineBody(Body):
    line_id: Id = Field(examples=["1"])
    quantity: Quantity = Field(examples=[1])
    restock: bool = Field(description="sold again, or written off", strict=True, examples=[True])


class ReceiveReturnBody(CommandBody):
    lines: list[ReceivedLineBody] = Field(min_length=1, max_length=2 * MAX_LINES)


class HoldOrderBody(CommandBody):
    reason: Text = Field(examples=["the address is checked"])


_DELIVERED_NOW = ConfirmDeliveryBody(occurred_at=None)

# --- routes --------------------------------------------------------------------------------------------------------

ShipmentId = Annotated[Id, Path(description="as the order shows it", examples=[_PARCEL])]
ReturnId = Annotated[Id, Path(description="as the order shows it", examples=[_RETURN])]

_SHIPPABLE: tuple[Described, ...] = (
    (order.OrderNotConfirmed(TOUR, "PENDING"), "Only a CONFIRMED order can be shipped."),
    (order.OrderOnHold(TOUR, "the address is checked"), "The order is on hold."),
    (order.OrderNotPaid(TOUR, 1_869, "GBP", 2), "An authorisation was voided since the order was confirmed."),
    (order.TooManyEntries(TOUR, "shipments", MAX_SHIPMENTS), "The order has 100 shipments, or 3,000 lines in them."),
    (
        InsufficientStock([Shortage("71053", 6, 4)]),
        "The reservation expired before the order was confirmed, and fewer pieces are available.",
    ),
)


@router.post(
    "/orders/{order_id}/shipments",
    summary="Ship a part of the order",
    **describe(
        *ANY_ORDER_CHANGE,
        *_SHIPPABLE,
        LINE_NOT_FOUND,
        (order.ShipmentExceedsOrder(TOUR, "1", 2, 3), "Fewer pieces of the line are left to ship."),
        (order.ShipmentAlreadyRecorded(TOUR, "parcel-1"), "The order has this shipment with other values."),
    ),
)
@allowed(Role.STAFF, Role.SERVICE)
async def ship_items(request: Request, order_id: OrderPaidAtOnceId, body: ShipItemsBody) -> Response:
    """Ships pieces of lines. CONFIRMED becomes SHIPPED once nothing is left to ship. The same shipment again, by its
    id, changes nothing."""
    lines = tuple([line.pieces() for line in body.lines])
    shipment_id = body.shipment_id or str(uuid7())
    command = order.ShipItems(order_id, shipment_id, body.tracking_number, body.carrier, lines)
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/shipments/{shipment_id}/delivery",
    summary="Confirm the delivery of a shipment",
    **describe(*ANY_ORDER_CHANGE, (order.ShipmentNotFound(TOUR, "parcel-9"), "The order has no such shipment.")),
)
@allowed(Role.STAFF, Role.SERVICE)
async def confirm_shipment_delivery(
    request: Request, order_id: OrderPaidAtOnceId, shipment_id: ShipmentId, body: ConfirmDeliveryBody = _DELIVERED_NOW
) -> Response:
    """SHIPPED becomes DELIVERED with the last shipment. A second confirmation changes nothing. The body may be left
    out."""
    return await carry_out(request, order.ConfirmShipmentDelivery(order_id, shipment_id), body)


@router.post("/orders/{order_id}/shipment", summary="Ship the order", **describe(*ANY_ORDER_CHANGE, *_SHIPPABLE))
@allowed(Role.STAFF, Role.SERVICE)
async def ship_order(request: Request, order_id: OrderPaidAtOnceId, body: ShipOrderBody) -> Response:
    """Ships all that is left: CONFIRMED becomes SHIPPED. The same shipment again changes nothing."""
    return await carry_out(request, order.ShipOrder(order_id, body.tracking_number, body.carrier), body)


@router.post(
    "/orders/{order_id}/delivery",
    summary="Confirm the delivery",
    **describe(*ANY_ORDER_CHANGE, (order.OrderNotShipped(TOUR, "PENDING"), "Only a SHIPPED order can be delivered.")),
)
@allowed(Role.STAFF, Role.SERVICE)
async def confirm_delivery(
    request: Request, order_id: ShippedOrderId, body: ConfirmDeliveryBody = _DELIVERED_NOW
) -> Response:
    """Of every shipment: SHIPPED becomes DELIVERED. A second confirmation changes nothing. The body may be left out."""
    return await carry_out(request, order.ConfirmDelivery(order_id), body)


@router.post(
    "/orders/{order_id}/returns",
    summary="Request a return",
    **describe(
        *ANY_ORDER_CHANGE,
        LINE_NOT_FOUND,
        (order.ReturnExceedsShipment(TOUR, "1", 2, 3), "Fewer pieces of the line were shipped and not returned."),
        (order.ReturnAlreadyRequested(TOUR, "return-1"), "The order has this return with other values."),
        (
            order.TooManyEntries(TOUR, "lines in returns", MAX_PARCEL_LINES),
            f"The order has {MAX_RETURNS} returns, or 3,000 lines in them.",
        ),
        NO_KEYS,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def request_return(request: Request, order_id: ShippedOrderId, body: RequestReturnBody) -> Response:
    """Announces that shipped pieces come back. The same return again, by its id, changes nothing."""
    lines = tuple([line.pieces() for line in body.lines])
    command = order.RequestReturn(
        order_id, body.return_id or str(uuid7()), lines, await seal_reason(request, order_id, body.reason)
    )
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/returns/{return_id}/receipt",
    summary="Receive a return",
    **describe(
        *ANY_ORDER_CHANGE,
        LINE_NOT_FOUND,
        (order.ReturnNotFound(TOUR, "return-9"), "The order has no such return."),
        (order.ReceiptExceedsReturn(TOUR, "1", 0, 1), "Fewer pieces of the line are expected."),
    ),
)
@allowed(Role.STAFF, Role.SERVICE)
async def receive_return(
    request: Request, order_id: ShippedOrderId, return_id: ReturnId, body: ReceiveReturnBody
) -> Response:
    """Pieces of the return arrived, all or some. What was charged for them is owed back: it shows as `refund_due`. The
    same receipt again changes nothing once all is received; send an Idempotency-Key with a part."""
    lines = tuple([ReceivedLine(line.line_id, line.quantity, line.restock) for line in body.lines])
    return await carry_out(request, order.ReceiveReturn(order_id, return_id, lines), body)


@router.post(
    "/orders/{order_id}/hold",
    summary="Hold the order",
    **describe(
        *ANY_ORDER_CHANGE,
        (order.OrderNotHoldable(TOUR, "SHIPPED"), "Only a PENDING or CONFIRMED order can be held."),
        NO_KEYS,
    ),
)
@allowed(Role.STAFF, Role.SERVICE)
async def hold_order(request: Request, order_id: OrderId, body: HoldOrderBody) -> Response:
    """Nothing of the order is shipped until the hold is released. Another reason replaces the former."""
    reason = await seal_reason(request, order_id, body.reason)
    return await carry_out(request, order.HoldOrder(order_id, reason), body)


@router.delete("/orders/{order_id}/hold", summary="Release the hold", **describe(*ANY_ORDER_CHANGE))
@allowed(Role.STAFF, Role.SERVICE)
async def release_hold(request: Request, order_id: OrderId) -> Response:
    """An order that is not on hold stays as it is."""
    return await carry_out(request, order.ReleaseHold(order_id), None)
