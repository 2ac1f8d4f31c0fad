"""The two commands on the stock of a product. Orders reserve, ship and return pieces by their own commands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field, StrictInt
from starlette.responses import Response

from command_service.api.bodies import CommandBody, ShortText, Text
from command_service.api.commands import ANY_CHANGE, CommandRoute, carry_out, describe
from command_service.domain import stock
from command_service.domain.stock import MAX_PIECES
from shared.http.fields import ProductId
from shared.identity.access import allowed
from shared.identity.caller import Role

DESCRIPTION = "Pieces of products. From its first receipt or adjustment on, a product is tracked: orders reserve it."
router = APIRouter(tags=["stock"], route_class=CommandRoute)


class ReceiptBody(CommandBody):
    quantity: Annotated[StrictInt, Field(ge=1, le=MAX_PIECES)] = Field(examples=[200])
    reference: ShortText | None = Field(None, description="yours, such as that of a delivery", examples=["delivery-77"])


class AdjustmentBody(CommandBody):
    delta: Annotated[StrictInt, Field(ge=-MAX_PIECES, le=MAX_PIECES)] = Field(
        description="below 0: pieces are missing; 0: the product is tracked from now on", examples=[-3]
    )
    reason: Text = Field(examples=["broken in storage"])


TrackedProduct = Annotated[ProductId, Path(description="as orders name it", examples=["LANTERN"])]


@router.post("/products/{product_id}/stock/receipts", summary="Receive stock", **describe(*ANY_CHANGE))
@allowed(Role.STAFF, Role.SERVICE)
async def receive_stock(request: Request, product_id: TrackedProduct, body: ReceiptBody) -> Response:
    """So many pieces more. Only an Idempotency-Key makes it safe to repeat the request."""
    return await carry_out(request, stock.ReceiveStock(product_id, body.quantity, body.reference), body)


@router.post(
    "/products/{product_id}/stock/adjustments",
    summary="Adjust stock",
    **describe(
        *ANY_CHANGE,
        (
            stock.InsufficientStock([stock.Shortage("LANTERN", 3, 2)]),
            "More pieces would be missing than are available; reserved ones are not lost.",
        ),
    ),
)
@allowed(Role.STAFF, Role.SERVICE)
async def adjust_stock(request: Request, product_id: TrackedProduct, body: AdjustmentBody) -> Response:
    """So many pieces more or less, because they were counted, lost or found."""
    return await carry_out(request, stock.AdjustStock(product_id, body.delta, body.reason), body)
